"""The variational autoencoder of Kingma & Welling (2014)."""

import keras
import numpy as np
from keras import ops

from vae_tf import networks, random
from vae_tf.distributions import Normal
from vae_tf.errors import InvalidTypeError, check_choice, check_positive_int, invalid
from vae_tf.layers import Sampling
from vae_tf.models.base import Model
from vae_tf.models.schedule import KLSchedule

NETWORKS = ("dense", "conv")
OUTPUT_BIAS = ("mean", "zeros")


@keras.saving.register_keras_serializable(package="vae_tf")
class VAE(KLSchedule, Model):
    """A variational autoencoder: q(z|x) = N(μ(x), diag σ²(x)), p(z) = N(0, I), p(x|z) a likelihood.

    Training minimises the negative evidence lower bound, in nats per image,

        −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z)) = reconstruction_loss + kl_loss = loss.

    Images are arrays `(N, H, W)`, `(N, H, W, C)` or `(N, D)`, or batches of a `tf.data` set of `x`,
    `(x,)` or `(x, y)`: bytes (uint8, 0 to 255), booleans, or floats in [0, 1]. Labels are not used.
    `model(x)` is one stochastic pass and gives the likelihood's parameters (logits for a Bernoulli);
    `predict` and `reconstruct` give images.

    Args:
        latent_dim: the size of the code z.
        hidden_units: widths of the dense encoder's hidden layers, which the decoder mirrors; `()` gives
            a linear model.
        activation: of the hidden layers, anything that Keras takes.
        likelihood: p(x|z): "bernoulli", "continuous_bernoulli", "gaussian" (one σ, learned),
            "discretized_logistic", or an object such as `Gaussian(sigma=0.1)`.
        binarize, seed: as for `Model`.
        kernel_initializer: of the encoder's hidden layers, anything that Keras takes; the decoder's
            begin after Glorot, for He's would amplify the noise of the first codes.
        network: "dense" or "conv", what makes the networks that are not given.
        filters: channels of the convolutional encoder's layers, each of which halves the image; the
            decoder mirrors them. None: 32, 64, 128, 256, of as many layers as leave 4 to 7 pixels.
        encoder: a Keras model from `(batch, *image_shape)` to `[z_mean, z_log_var]`, each `(batch,
            latent_dim)`.
        decoder: a Keras model from `(batch, latent_dim)` to the likelihood's parameters.
        output_bias: where the decoder's output begins when it is not given: "mean", at the training
            images' mean, and a learned σ at their spread; or "zeros", as in the original program.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> vae = VAE(latent_dim=2, hidden_units=(32,), seed=0)
        >>> vae.compile()
        >>> history = vae.fit(np.zeros((100, 8, 8), "uint8"), verbose=0)
        >>> vae.generate(num=4, seed=0).shape
        (4, 8, 8)

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", equation 10.
    """

    def __init__(
        self,
        latent_dim=10,
        hidden_units=(512, 384, 256),
        activation="relu",
        likelihood="bernoulli",
        binarize=False,
        kernel_initializer="he_uniform",
        seed=None,
        network="dense",
        filters=None,
        encoder=None,
        decoder=None,
        output_bias="mean",
        **kwargs,
    ):
        super().__init__(likelihood, seed, binarize, **kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.hidden_units = check_widths("hidden_units", hidden_units)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.network = check_choice("network", network, NETWORKS)
        self.filters = None if filters is None else check_widths("filters", filters)
        self.output_bias = check_choice("output_bias", output_bias, OUTPUT_BIAS)
        self.encoder, self.decoder = _network(encoder), _network(decoder)
        self._given = {"encoder": encoder is not None, "decoder": decoder is not None}
        self.sampling = Sampling(seed=random.child_seeds(self.seed, 3)[2], name="sampling")
        self.add_schedule()
        self.free_bits = self.add_setting("free_bits", 0.0)

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        pixels, seeds = self.likelihood.parameter_shape(shape), self.weight_seeds
        seen, told = self.network_inputs(shape)
        make_encoder, make_decoder = {
            "dense": (networks.dense_encoder, networks.dense_decoder),
            "conv": (networks.conv_encoder, networks.conv_decoder),
        }[self.network]
        filters = networks.filters_for(shape) if self.filters is None else self.filters
        widths = self.hidden_units if self.network == "dense" else filters
        if self.encoder is None:
            initializer = self.kernel_initializer
            self.encoder = make_encoder(
                seen, self.latent_dim, widths, self.activation, initializer, seeds[0]
            )
        if self.decoder is None:
            self.decoder = make_decoder(told, pixels, widths[::-1], self.activation, seed=seeds[1])
        code = (self.latent_dim,)
        _check_network("encoder", self.encoder, seen, [code, code])
        _check_network("decoder", self.decoder, (told,), pixels)
        super().build(input_shape)

    def network_inputs(self, image_shape):
        """The shape of what the encoder is given for an image, and the length of what the decoder is."""
        return image_shape, self.latent_dim

    def begin(self, x):
        """The output begins at the images' mean; a decoder of the user's own is left as it is."""
        if self.output_bias == "mean" and not self._given["decoder"]:
            networks.begin_at_mean(self.decoder, self.likelihood, x)

    # The model's parts.

    def encode(self, x, *condition):
        """q(z|x): `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`."""
        return tuple(self.encoder(x))

    def decode(self, z, *condition):
        """p(x|z): its parameters (logits for a Bernoulli), for z `(batch, latent_dim)`."""
        return self.decoder(z)

    def posterior(self, x, *condition):
        """q(z|x) = N(μ(x), diag σ²(x))."""
        return Normal(*self.encode(x, *condition))

    def prior(self, *condition):
        """p(z) = N(0, I).

        Raises:
            ValueError: a subclass overrides `regularizer`, and does not say what its prior is.
        """
        if type(self).regularizer is not VAE.regularizer:
            name = type(self).__name__
            raise invalid(
                "prior",
                f"a {name} that says its prior, since it overrides `regularizer`",
                "none",
                f"Define `prior(self)` in {name}; if it is still N(0, I), return Normal(0.0, 0.0).",
            )
        return Normal(ops.zeros((1, self.latent_dim)), ops.zeros((1, self.latent_dim)))

    def regularizer(self, z_mean, z_log_var, *condition):
        """KL(q(z|x) ‖ p(z)) in nats, for each image and latent dimension: `(batch, latent_dim)`."""
        standard = type(self).prior is VAE.prior
        return Normal(z_mean, z_log_var).kl(None if standard else self.prior(*condition))

    # The evidence lower bound.

    def terms(self, x, *condition, training=False):
        """−ELBO, its two terms, and what each latent dimension carries, from one draw of z an image."""
        z_mean, z_log_var = self.encode(x, *condition)
        kl = self.regularizer(z_mean, z_log_var, *condition)
        z = self.sampling((z_mean, z_log_var))
        reconstruction = -self.likelihood.log_prob(self.decode(z, *condition), x)
        return {
            "loss": reconstruction + ops.sum(kl, axis=-1),
            "reconstruction_loss": reconstruction,
            "kl_loss": ops.sum(kl, axis=-1),
            **carried(z_mean, z_log_var, kl),
        }

    def objective(self, means):
        """Reconstruction + β Σ_j max(KL_j, free bits); the `loss` that is shown has β = 1."""
        return means["reconstruction_loss"] + self.beta * (means["kl_loss"] + self.lacking(means))

    def lacking(self, means):
        """Σ_j max(0, free bits − KL_j)."""
        return ops.sum(ops.relu(self.free_bits - means["kl_per_dimension"]))

    def call(self, inputs):
        """One draw of z from q(z|x), decoded; the mean KL enters by `add_loss`."""
        x, *condition = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        z_mean, z_log_var = self.encode(self.to_floats(x), *condition)
        kl = self.regularizer(z_mean, z_log_var, *condition)
        self.add_loss(ops.mean(ops.sum(kl, axis=-1)))
        return self.decode(self.sampling((z_mean, z_log_var)), *condition)

    def _code_to_decode(self, code):
        return self.sampling(code)

    def sample_prior(self, num, *condition):
        """Codes z ~ p(z), `(num, latent_dim)`."""
        prior = self.prior(*condition)
        epsilon = self.sampling.normal((num, self.latent_dim))
        return prior.mean() + ops.exp(0.5 * prior.log_var) * epsilon

    def log_weights(self, x, num_samples, *condition):
        """log p(x, z_k) − log q(z_k|x) for draws z_k from q(z|x): `(num_samples, batch)`, in nats.

        Their mean over k estimates the ELBO, their logmeanexp log p(x), both from below. For many
        samples, in bounded memory, see `vae_tf.evaluation.log_likelihood`.

        Args:
            x: images, as the likelihood has them.
            num_samples: how many draws of z an image.
            seed: a non-negative integer that fixes the draws; without it the noise is training's.

        Source: Burda, Grosse & Salakhutdinov (2016), "Importance Weighted Autoencoders", equation 8.
        """
        num_samples = check_positive_int("num_samples", num_samples)
        q, prior = self.posterior(x, *condition), self.prior(*condition)
        z, log_q = q.sample_with_log_prob(self.sampling, num_samples)
        codes = ops.reshape(z, (-1, self.latent_dim))
        x, *condition = (repeated(value, num_samples) for value in (x, *condition))
        log_p = self.likelihood.log_prob(self.decode(codes, *condition), x)
        return ops.reshape(log_p, ops.shape(log_q)) + prior.log_prob(z) - log_q

    # Saving.

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


def carried(z_mean, z_log_var, kl):
    """The terms of which `LatentMonitor` tells what each latent dimension carries."""
    return {
        "kl_per_dimension": kl,
        "z_mean": z_mean,
        "z_mean_squared": ops.square(ops.cast(z_mean, "float32")),
        "z_variance": ops.exp(ops.cast(z_log_var, "float32")),
    }


def repeated(value, num):
    """A batch `num` times after one another, `(num·batch, ...)`: one for each of `num` samples."""
    shape = ops.shape(value)
    return ops.reshape(ops.broadcast_to(value, (num, *shape)), (-1, *shape[1:]))


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
