"""Likelihoods p(x|z): each makes a distribution of pixels from a decoder's output.

They are layers because a likelihood may have a weight of its own, such as a Gaussian's σ.
"""

import math

import keras
import numpy as np
from keras import ops

from vae_tf import distributions
from vae_tf.errors import InvalidTypeError, invalid

LEAST = 1e-3  # of the brightness at which a decoder's pixel begins (as Burda et al. 2016 had it)


class Likelihood(keras.layers.Layer):
    """What all likelihoods share. A subclass gives `distribution`, and `support`.

    Called as a layer, it gives the mean image: float32, whatever the decoder computes in.
    """

    support = distributions.REAL

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)  # `distributions` chooses the type
        # Without weights there is nothing to build. Keras quantises only layers that are built.
        self.built = type(self).build is keras.layers.Layer.build

    def distribution(self, parameters):
        """p(x|z), with `log_prob`, `mean` and `sample`.

        Args:
            parameters: the decoder's output, of shape `(batch, *parameter_shape(image_shape))`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `distribution(parameters)`.")

    def parameter_shape(self, image_shape):
        """The shape that a decoder must give for an image, without the batch."""
        return tuple(image_shape)

    def begin(self, mean, std):
        """Begin training at the images' mean: its own weights are set, and the decoder's bias given.

        Args:
            mean, std: of each pixel over the training images, NumPy `image_shape`, white being 1.

        Returns:
            Parameters of p(x) with this mean, NumPy `parameter_shape(image_shape)`; here zeros.
        """
        return np.zeros(self.parameter_shape(mean.shape))

    def call(self, parameters):
        return self.mean(parameters)

    def log_prob(self, parameters, x):
        """log p(x|z) in nats per image, of shape `(batch,)`."""
        return self.distribution(parameters).log_prob(x)

    def mean(self, parameters):
        """E[x|z]: images."""
        return self.distribution(parameters).mean()

    def sample(self, parameters, noise=None):
        """Draw images from p(x|z).

        Args:
            parameters: the decoder's output.
            noise: a `vae_tf.layers.Noise`; or an integer, the seed of a new one; or None.
        """
        if noise is None or hasattr(noise, "__index__"):
            from vae_tf.layers import Noise  # which is built upon this module's neighbours

            noise = Noise(seed=noise)
        return self.distribution(parameters).sample(noise)


@keras.saving.register_keras_serializable(package="vae_tf")
class Bernoulli(Likelihood):
    """Binary pixels; the decoder gives logits. See `vae_tf.distributions.Bernoulli`."""

    support = distributions.BINARY

    def distribution(self, parameters):
        return distributions.Bernoulli(parameters)

    def begin(self, mean, std):
        mean = np.clip(mean, LEAST, 1 - LEAST)
        return np.log(mean) - np.log1p(-mean)


@keras.saving.register_keras_serializable(package="vae_tf")
class ContinuousBernoulli(Likelihood):
    """Grey values in [0, 1]; the decoder gives logits.

    See `vae_tf.distributions.ContinuousBernoulli`.
    """

    support = distributions.INTERVAL

    def distribution(self, parameters):
        return distributions.ContinuousBernoulli(parameters)

    def begin(self, mean, std):
        return _inverse(self.mean, mean, 1 / LEAST)  # at that logit the mean is 1 − LEAST


@keras.saving.register_keras_serializable(package="vae_tf")
class Gaussian(Likelihood):
    """Real pixels with standard deviation σ; the decoder gives their means.

    See `vae_tf.distributions.PixelNormal`. With σ = 1, −log p(x|z) is half the squared error and a
    constant.

    Args:
        sigma: σ in units of a pixel's value. None learns one with the weights, from 1 on;
            "per_pixel" learns one for each pixel, and must be built before it is used.
    """

    support = distributions.REAL

    def __init__(self, sigma=None, **kwargs):
        super().__init__(**kwargs)
        self.sigma = _check_sigma(sigma)
        self.log_sigma = None
        if sigma != "per_pixel":
            self._add_log_sigma(())
            self.built = True

    def build(self, input_shape):
        if self.log_sigma is None:  # a loaded likelihood is built before its model is
            self._add_log_sigma(tuple(input_shape)[1:])

    def _add_log_sigma(self, shape):
        given = isinstance(self.sigma, (int, float))
        self.log_sigma = self.add_weight(
            name="log_sigma",
            shape=shape,
            initializer=keras.initializers.Constant(math.log(self.sigma) if given else 0.0),
            trainable=not given,
            dtype="float32",
            autocast=False,
        )

    def distribution(self, parameters):
        if self.log_sigma is None:
            raise ValueError(
                "This Gaussian likelihood has one sigma for each pixel, and does not know the images' "
                "shape yet. Call `likelihood.build((None, *image_shape))` first."
            )
        return distributions.PixelNormal(parameters, 2.0 * ops.convert_to_tensor(self.log_sigma))

    def begin(self, mean, std):
        if self.log_sigma.trainable:
            std = np.broadcast_to(std, mean.shape)
            std = std if self.sigma == "per_pixel" else np.sqrt(np.mean(np.square(std)))
            self.log_sigma.assign(np.log(np.maximum(std, LEAST)))
        return mean

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}


@keras.saving.register_keras_serializable(package="vae_tf")
class DiscretizedLogistic(Likelihood):
    """Bytes; the decoder gives two numbers a pixel, the mean and the log-scale.

    See `vae_tf.distributions.DiscretizedLogistic`.
    """

    support = distributions.BYTES

    def parameter_shape(self, image_shape):
        return (*image_shape, 2)

    def distribution(self, parameters):
        return distributions.DiscretizedLogistic(*ops.unstack(parameters, 2, axis=-1))

    def begin(self, mean, std):
        log_scale = np.log(math.sqrt(3) / math.pi * np.maximum(std, LEAST))

        def parameters(middle):
            return np.stack([middle, log_scale], axis=-1)

        return parameters(_inverse(lambda middle: self.mean(parameters(middle)), mean, 3.0))


LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "discretized_logistic": DiscretizedLogistic,
}


def get_likelihood(likelihood):
    """A likelihood from its name, from its saved form, or as it is."""
    if isinstance(likelihood, dict):
        return keras.saving.deserialize_keras_object(likelihood)
    if isinstance(likelihood, str) and likelihood in LIKELIHOODS:
        return LIKELIHOODS[likelihood]()
    if isinstance(likelihood, type) or not hasattr(likelihood, "distribution"):
        names = ", ".join(map(repr, LIKELIHOODS))
        raise invalid("likelihood", f"{names} or a Likelihood layer", repr(likelihood))
    return likelihood


def _inverse(rising, value, limit):
    """Where a rising function of arrays has this value, by bisection between −limit and limit."""
    low, high = np.full(value.shape, -limit), np.full(value.shape, limit)
    for _ in range(40):
        middle = (low + high) / 2
        above = ops.convert_to_numpy(rising(middle.astype("float32"))) > value
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


def _check_sigma(sigma):
    """Return sigma, or say what it can be."""
    expected = 'a positive number, None or "per_pixel"'
    if sigma is None or sigma == "per_pixel":
        return sigma
    if not isinstance(sigma, (int, float)) or isinstance(sigma, bool):
        raise invalid("sigma", expected, repr(sigma), kind=InvalidTypeError)
    if not 0 < sigma < math.inf:
        raise invalid("sigma", expected, f"sigma={sigma}")
    return sigma
