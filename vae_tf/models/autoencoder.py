"""Autoencoders without a distribution of the code: undercomplete, and denoising (Vincent et al. 2008)."""

import keras
from keras import ops

from vae_tf import random
from vae_tf.corruptions import get_corruption
from vae_tf.distributions.numerics import sum_over_pixels
from vae_tf.errors import check_choice, check_non_negative, invalid
from vae_tf.likelihoods import Gaussian
from vae_tf.models.two_networks import TwoNetworks

ERRORS = ("cross_entropy", "squared_error")


@keras.saving.register_keras_serializable(package="vae_tf")
class Autoencoder(TwoNetworks):
    """An encoder h = f(x) and a decoder g, trained to bring images back:

        loss = reconstruction_loss = −Σ x ln x̂ + (1 − x) ln(1 − x̂),  or  ‖x − x̂‖²,  x̂ = g(f(x)),

    a sum over the pixels of an image. It has no prior: it cannot `generate`, and states no likelihood.
    With linear layers (`hidden_units=()`) and the squared error it finds the subspace of PCA.

    Args:
        latent_dim, hidden_units, activation, network, filters, kernel_initializer, output_bias: as for
            `VAE`.
        error: "cross_entropy" for pixels in [0, 1], or "squared_error" for any.
        code_activation: of the code, anything that Keras takes; None leaves it linear.
        weight_decay: λ, which adds ½ λ Σ W² over the kernels of the networks that are made here.
        encoder: a Keras model from `(batch, *image_shape)` to the code, `(batch, latent_dim)`.
        decoder: a Keras model from the code to the image: logits for the cross-entropy.
        kwargs: `binarize` and `seed`, as for `Model`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> model = Autoencoder(latent_dim=2, hidden_units=(32,), seed=0)
        >>> model.compile()
        >>> history = model.fit(np.zeros((100, 8, 8), "uint8"), verbose=0)
        >>> model.reconstruct(np.zeros((3, 8, 8), "uint8")).shape
        (3, 8, 8)

    Source: Hinton & Salakhutdinov (2006), "Reducing the Dimensionality of Data with Neural Networks".
    """

    def __init__(
        self,
        latent_dim=10,
        hidden_units=(512, 384, 256),
        activation="relu",
        error="cross_entropy",
        code_activation=None,
        weight_decay=0.0,
        kernel_initializer="he_uniform",
        network="dense",
        filters=None,
        encoder=None,
        decoder=None,
        output_bias="mean",
        **kwargs,
    ):
        self._check_error(error, kwargs)
        bernoulli = error == "cross_entropy"
        super().__init__(
            latent_dim, hidden_units, activation, kernel_initializer, network, filters, encoder, decoder,
            output_bias, likelihood="bernoulli" if bernoulli else Gaussian(sigma=0.5**0.5), **kwargs,
        )  # fmt: skip
        self.error = error
        self.unit = {"cross_entropy": "nats", "squared_error": "squared error"}[error]
        self.code_activation = keras.activations.get(code_activation)
        self.weight_decay = check_non_negative("weight_decay", weight_decay)

    @staticmethod
    def _check_error(error, kwargs):
        check_choice("error", error, ERRORS)
        if "likelihood" in kwargs:
            expected = "none: an autoencoder has an error ('cross_entropy' or 'squared_error')"
            raise invalid("likelihood", expected, f"likelihood={kwargs['likelihood']!r}")

    def build(self, input_shape):
        super().build(input_shape)
        made = [getattr(self, name) for name, given in self._given.items() if not given]
        for weight in (weight for network in made for weight in network.trainable_weights):
            if weight.name == "kernel" and self.weight_decay:
                weight.regularizer = keras.regularizers.L2(0.5 * self.weight_decay)

    def check_support(self, x):
        """Any pixels will do: no likelihood is stated."""

    def encode(self, x):
        """The code h, `(batch, latent_dim)`."""
        return self.encoder(x)

    def terms(self, x, training=False):
        loss = self.reconstruction_error(self.decode(self.encode(x)), x)
        return {"loss": loss, "reconstruction_loss": loss}

    def reconstruction_error(self, parameters, x):
        """The cross-entropy in nats, or the squared error, of each image: `(batch,)`."""
        if self.error == "cross_entropy":
            return -self.likelihood.log_prob(parameters, x)
        return sum_over_pixels(ops.square(x - self.likelihood.mean(parameters)))

    def get_config(self):
        config = super().get_config()
        del config["likelihood"]
        return config | {
            "error": self.error,
            "code_activation": keras.activations.serialize(self.code_activation),
            "weight_decay": self.weight_decay,
        }


@keras.saving.register_keras_serializable(package="vae_tf")
class DenoisingAutoencoder(Autoencoder):
    """An autoencoder that is shown corrupted images in training, and brings back the clean ones:

        loss = the error of g(f(x̃)) against x,  x̃ ~ C(x̃|x).

    Outside training nothing is corrupted: `encode`, `reconstruct` and `evaluate` see images as they
    are given. `reconstruct` of corrupted images denoises them.

    Args:
        args, kwargs: as for `Autoencoder`.
        corruption: "masking", "gaussian", "salt_and_pepper", or a layer, such as those of
            `vae_tf.corruptions`.
        corruption_level: how strong: the share of the pixels, or σ.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> model = DenoisingAutoencoder(8, (32,), corruption="masking", corruption_level=0.5, seed=0)

    Source: Vincent et al. (2008), "Extracting and Composing Robust Features with Denoising
    Autoencoders"; Vincent et al. (2010), "Stacked Denoising Autoencoders".
    """

    def __init__(self, *args, corruption="masking", corruption_level=None, **kwargs):
        super().__init__(*args, **kwargs)
        named, level = isinstance(corruption, str), corruption_level
        level = 0.3 if named and level is None else level
        seed = random.child_seeds(self.seed, 7)[-1] if named else None
        self.corruption = get_corruption(corruption, level, seed)

    def terms(self, x, training=False):
        seen = self.corruption(x) if training else x
        loss = self.reconstruction_error(self.decode(self.encode(seen)), x)
        return {"loss": loss, "reconstruction_loss": loss}

    def get_config(self):
        corruption = keras.saving.serialize_keras_object(self.corruption)
        return {**super().get_config(), "corruption": corruption}
