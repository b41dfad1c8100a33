"""Likelihoods p(x|z): each owns the reconstruction term, the mean and the samples.

They are layers because a likelihood may have a weight of its own, such as a Gaussian's σ.
"""

import math

import keras
from keras import ops

from vae_tf.errors import InvalidTypeError, invalid


@keras.saving.register_keras_serializable(package="vae_tf")
class Bernoulli(keras.layers.Layer):
    """Independent pixels x ∈ {0, 1} with probability sigmoid(logits).

    On grey values in [0, 1] `log_prob` is the negative cross-entropy: a loss in nats, but not a
    log-likelihood, and not to be compared with figures from binarised images.

    Source: Kingma & Welling (2014), appendix C.1.
    """

    value_range = (0.0, 1.0)

    def log_prob(self, logits, x):
        """Σ_pixels x·log p + (1 − x)·log(1 − p), with p = sigmoid(logits).

        Written as −Σ max(l, 0) − l·x + log(1 + e^−|l|), which neither overflows nor takes log 0.

        Args:
            logits: the decoder's output, of shape `(batch, ...)`.
            x: images in [0, 1], of the same shape.

        Returns:
            Nats per image, of shape `(batch,)`.
        """
        cross_entropy = ops.relu(logits) - logits * x + ops.log1p(ops.exp(-ops.abs(logits)))
        return -_sum_over_pixels(cross_entropy)

    def mean(self, logits):
        """E[x|z] = sigmoid(logits): images in [0, 1], in the shape of `logits`."""
        return ops.sigmoid(logits)

    def sample(self, logits, seed=None):
        """Draw binary images, 0.0 or 1.0, in the shape of `logits`; `seed` as in `keras.random`."""
        uniform = keras.random.uniform(ops.shape(logits), seed=seed)
        return ops.cast(uniform < ops.sigmoid(logits), logits.dtype)


@keras.saving.register_keras_serializable(package="vae_tf")
class Gaussian(keras.layers.Layer):
    """Independent pixels x ∈ ℝ with mean the decoder's output and one standard deviation σ.

    Args:
        sigma: σ in units of a pixel's value; None learns it with the weights, from 1 on.

    Source: Kingma & Welling (2014), appendix C.2, with one σ for all pixels.
    """

    value_range = (-math.inf, math.inf)

    def __init__(self, sigma=None, **kwargs):
        super().__init__(**kwargs)
        number = isinstance(sigma, (int, float)) and not isinstance(sigma, bool)
        if sigma is not None and not number:
            raise invalid("sigma", "a positive number or None", repr(sigma), kind=InvalidTypeError)
        if sigma is not None and not 0 < sigma < math.inf:
            raise invalid("sigma", "a positive number or None", f"sigma={sigma}")
        self.sigma = sigma
        self.log_sigma = self.add_weight(
            name="log_sigma",
            initializer=keras.initializers.Constant(math.log(sigma or 1.0)),
            trainable=sigma is None,
        )

    def log_prob(self, mean, x):
        """−Σ_pixels ½((x − mean)/σ)² + log σ + ½ log 2π: nats per image, of shape `(batch,)`.

        A density's: it changes with the unit of a pixel, and may be positive.
        """
        scaled = (x - mean) * ops.exp(-self.log_sigma)
        terms = 0.5 * ops.square(scaled) + self.log_sigma + 0.5 * math.log(2 * math.pi)
        return -_sum_over_pixels(terms)

    def mean(self, mean):
        """E[x|z]: the decoder's output."""
        return mean

    def sample(self, mean, seed=None):
        """Draw images in the shape of `mean`; `seed` as in `keras.random`."""
        return mean + ops.exp(self.log_sigma) * keras.random.normal(ops.shape(mean), seed=seed)

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}


def _sum_over_pixels(values):
    """Sum over all axes but the first, written as a product with ones.

    XLA's compiler for CPUs makes vectors and threads of a product, and one scalar loop of a sum with
    what feeds it: the log-likelihood of many samples takes a third less time.
    """
    pixels = math.prod(values.shape[1:])
    ones = ops.ones((pixels, 1), dtype=values.dtype)
    return ops.matmul(ops.reshape(values, (-1, pixels)), ones)[:, 0]


LIKELIHOODS = {"bernoulli": Bernoulli, "gaussian": Gaussian}


def get_likelihood(likelihood):
    """A likelihood from its name, from its saved form, or as it is."""
    if isinstance(likelihood, dict):
        return keras.saving.deserialize_keras_object(likelihood)
    if isinstance(likelihood, str) and likelihood in LIKELIHOODS:
        return LIKELIHOODS[likelihood]()
    if not hasattr(likelihood, "log_prob"):
        names = " or ".join(map(repr, LIKELIHOODS))
        raise invalid("likelihood", f"{names}, or an object with log_prob", repr(likelihood))
    return likelihood
