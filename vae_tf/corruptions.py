"""Layers that corrupt images, for models that learn to undo it, and to measure how well they do."""

import keras
from keras import ops

from vae_tf.distributions.numerics import floats, to_floats
from vae_tf.errors import InvalidTypeError, check_non_negative, invalid
from vae_tf.layers import Noise


def check_share(argument, value):
    """Return `value` as a float, or raise if it is not a probability."""
    expected = "a number from 0 to 1"
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise invalid(argument, expected, f"{argument}={value!r}", kind=InvalidTypeError)
    if not 0 <= value <= 1:
        raise invalid(argument, expected, f"{argument}={value!r}")
    return float(value)


class Corruption(Noise):
    """What all corruptions share. A subclass gives `corrupted`.

    A layer corrupts whenever it is called, in training or not: a model decides when that is.

    Input: images, floats or bytes (which come to [0, 1]). Output: floats of the same shape.
    """

    check_level = staticmethod(check_share)  # of its first argument, how strong it is

    def corrupted(self, x):
        """Images, floats of any shape, as they are after the corruption."""
        raise NotImplementedError(f"{type(self).__name__} has no `corrupted(x)`.")

    def call(self, x):
        (x,) = floats(to_floats(x))
        return ops.cast(self.corrupted(x), self.compute_dtype)


@keras.saving.register_keras_serializable(package="vae_tf")
class Masking(Corruption):
    """A share of the pixels is forced to 0: each with this probability, whatever the others do.

    Each colour of a pixel counts as one of its own.

    Vincent et al. force exactly ν·d of an image's d pixels. Here that number is binomial, with the
    mean ν·d, as in the published tutorial of the same authors' group.

    Args:
        share: the probability ν, from 0 to 1.
        seed: as for `Noise`.

    Raises:
        ValueError, TypeError: `share` is no probability.

    Example:
        >>> import numpy as np
        >>> float(np.mean(Masking(0.5, seed=0)(np.ones((10, 784), "float32")))).__round__(1)
        0.5

    Source: Vincent et al. (2010), "Stacked denoising autoencoders".
    """

    def __init__(self, share, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        self.share = self.check_level("share", share)

    def corrupted(self, x):
        return ops.where(self.uniform(x) <= self.share, ops.zeros_like(x), x)

    def get_config(self):
        return {**super().get_config(), "share": self.share}


@keras.saving.register_keras_serializable(package="vae_tf")
class AdditiveGaussian(Corruption):
    """x + σ·ε with ε ~ N(0, I): values may leave [0, 1], as in the paper.

    Args:
        sigma: σ ≥ 0, in units of a pixel's value.
        seed: as for `Noise`.

    Raises:
        ValueError, TypeError: `sigma` is negative, or no number.

    Source: Vincent et al. (2010), "Stacked denoising autoencoders".
    """

    check_level = staticmethod(check_non_negative)

    def __init__(self, sigma, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        self.sigma = float(self.check_level("sigma", sigma))

    def corrupted(self, x):
        return x + self.sigma * ops.cast(self.normal(x), x.dtype)

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}


@keras.saving.register_keras_serializable(package="vae_tf")
class SaltAndPepper(Corruption):
    """A share of the pixels becomes black or white, at even chances; each colour of each on its own.

    Args:
        share: the probability ν that a pixel is changed, from 0 to 1.
        low, high: the least and the greatest value of a pixel.
        seed: as for `Noise`.

    Raises:
        ValueError, TypeError: `share` is no probability.

    Source: Vincent et al. (2010), "Stacked denoising autoencoders".
    """

    def __init__(self, share, low=0.0, high=1.0, seed=None, **kwargs):
        super().__init__(seed, **kwargs)
        self.share, self.low, self.high = self.check_level("share", share), low, high

    def corrupted(self, x):
        uniform = self.uniform(x)
        changed = ops.where(uniform <= 0.5 * self.share, self.low, self.high)
        return ops.where(uniform <= self.share, ops.cast(changed, x.dtype), x)

    def get_config(self):
        ours = {"share": self.share, "low": self.low, "high": self.high}
        return {**super().get_config(), **ours}


CORRUPTIONS = {
    "masking": Masking,
    "gaussian": AdditiveGaussian,
    "salt_and_pepper": SaltAndPepper,
}


def get_corruption(corruption, level=None, seed=None):
    """A corruption from its name and level, from its saved form, or a layer as it is.

    Args:
        corruption: "masking", "gaussian" or "salt_and_pepper"; or a layer from images to images.
        level: the share, or for "gaussian" σ. A layer has its own.
        seed: of the new layer's noise. A layer has its own.

    Raises:
        ValueError, TypeError: there is no such corruption, or the level is missing or wrong.

    Example:
        >>> get_corruption("masking", 0.3).share
        0.3
    """
    if isinstance(corruption, dict):
        corruption = keras.saving.deserialize_keras_object(corruption)
    if isinstance(corruption, keras.layers.Layer):
        if level is not None or seed is not None:
            received = f"level={level!r} and seed={seed!r} beside a {type(corruption).__name__}"
            raise invalid(
                "level", "none where the corruption is a layer, which has its own", received
            )
        return corruption
    if not isinstance(corruption, str) or corruption not in CORRUPTIONS:
        expected = f"{', '.join(map(repr, CORRUPTIONS))} or a layer"
        raise invalid("corruption", expected, f"corruption={corruption!r}")
    if level is None:
        raise invalid("level", f"how strong the corruption '{corruption}' is", "level=None")
    kind = CORRUPTIONS[corruption]
    return kind(kind.check_level("level", level), seed=seed)
