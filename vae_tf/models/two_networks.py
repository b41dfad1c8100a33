"""What models share whose code is a vector: an encoder and a decoder, made here or given by the user."""

import keras
import numpy as np

from vae_tf import networks
from vae_tf.errors import InvalidTypeError, check_choice, check_positive_int, invalid
from vae_tf.models.base import Model

NETWORKS = ("dense", "conv")
OUTPUT_BIAS = ("mean", "zeros")


class TwoNetworks(Model):
    """An encoder of images and a decoder of vectors. A subclass says what the encoder gives.

    Args: as for `VAE`.
    """

    heads = ("code",)  # the encoder's outputs, each of the code's length
    code_activation = None  # of these outputs

    def __init__(
        self,
        latent_dim,
        hidden_units,
        activation,
        kernel_initializer,
        network,
        filters,
        encoder,
        decoder,
        output_bias,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.hidden_units = check_widths("hidden_units", hidden_units)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.network = check_choice("network", network, NETWORKS)
        self.filters = None if filters is None else check_widths("filters", filters)
        self.output_bias = check_choice("output_bias", output_bias, OUTPUT_BIAS)
        self.encoder, self.decoder = _network(encoder), _network(decoder)
        self._given = {"encoder": encoder is not None, "decoder": decoder is not None}

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        pixels, seeds = self.likelihood.parameter_shape(shape), self.weight_seeds
        seen, told = self.network_inputs(shape)
        make_decoder = {"dense": networks.dense_decoder, "conv": networks.conv_decoder}
        filters = networks.filters_for(shape) if self.filters is None else self.filters
        widths = self.hidden_units if self.network == "dense" else filters
        if self.encoder is None:
            self.encoder = self.make_encoder(seen, widths, seeds[0])
        if self.decoder is None:
            self.decoder = make_decoder[self.network](
                told, pixels, widths[::-1], self.activation, seed=seeds[1]
            )
        code = [(self.latent_dim,) for _ in self.heads]
        _check_network("encoder", self.encoder, seen, code if len(code) > 1 else code[0])
        _check_network("decoder", self.decoder, (told,), pixels)
        super().build(input_shape)

    def make_encoder(self, shape, widths, seed):
        """The encoder, where the user gives none."""
        make = {"dense": networks.dense_encoder, "conv": networks.conv_encoder}[self.network]
        options = {"heads": self.heads, "head_activation": self.code_activation}
        return make(
            shape,
            self.latent_dim,
            widths,
            self.activation,
            self.kernel_initializer,
            seed,
            **options,
        )

    def network_inputs(self, image_shape):
        """The shape of what the encoder is given for an image, and the length of what the decoder is."""
        return image_shape, self.latent_dim

    def begin(self, x):
        """The output begins at the images' mean; a decoder of the user's own is left as it is."""
        if self.output_bias == "mean" and not self._given["decoder"]:
            networks.begin_at_mean(self.decoder, self.likelihood, x)

    def decode(self, z, *condition):
        """p(x|z): its parameters (logits for a Bernoulli), for z `(batch, latent_dim)`."""
        return self.decoder(z)

    def quantize(self, *args, **kwargs):
        """As in Keras; the networks are then saved as they are."""
        super().quantize(*args, **kwargs)
        self._given = dict.fromkeys(self._given, True)

    def get_config(self):
        given = {name: getattr(self, name) for name, given in self._given.items() if given}
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "network": self.network,
            "output_bias": self.output_bias,
            "filters": self.filters and list(self.filters),
            **{name: keras.saving.serialize_keras_object(net) for name, net in given.items()},
        }


def check_widths(argument, widths):
    """Return widths of layers as a tuple of positive ints, or say what is wrong with them."""
    if isinstance(widths, (int, np.integer)):
        widths = (widths,)
    if isinstance(widths, str) or not hasattr(widths, "__iter__"):
        raise invalid(
            argument,
            "a sequence of positive integers, such as (512, 384, 256)",
            f"{argument}={widths!r}",
            "() gives a linear model." if argument == "hidden_units" else "",
            kind=InvalidTypeError,
        )
    return tuple(check_positive_int(argument, units) for units in widths)


def _network(network):
    """A user's network: as it is, or from its saved form."""
    return keras.saving.deserialize_keras_object(network) if isinstance(network, dict) else network


def _check_network(argument, network, shape, expected):
    """Raise unless a network takes rows of `shape`, and gives rows of the shapes `expected`."""
    rows = keras.KerasTensor((None, *shape), "float32")
    try:
        outputs = keras.tree.map_structure(lambda tensor: tuple(tensor.shape[1:]), network(rows))
    except (ValueError, TypeError) as error:
        raise invalid(
            argument, f"a network that takes rows of shape {shape}", f"one that does not: {error}"
        ) from error
    outputs = list(outputs) if isinstance(expected, list) else outputs
    if outputs != expected:
        raise invalid(argument, f"a network that gives rows of shape {expected}", outputs)
