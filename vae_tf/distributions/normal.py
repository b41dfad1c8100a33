"""The normal distribution, of codes and of pixels, and its divergence."""

import math

from keras import ops

from vae_tf.distributions.numerics import floats, sum_over_pixels, to_floats
from vae_tf.distributions.support import REAL


class Normal:
    """Codes z ~ N(μ, diag σ²): `log_prob` sums over the last axis.

    Args:
        mean, log_var: μ and log σ², of shapes that broadcast, such as `(batch, latent_dim)`.

    Example:
        >>> round(float(Normal([1.0, 2.0], 0.0).log_prob([1.0, 2.0])), 4)  # −log 2π
        -1.8379
    """

    support = REAL

    def __init__(self, mean, log_var):
        self._mean, self.log_var = floats(mean, log_var)

    def mean(self):
        """E[z] = μ."""
        return self._mean

    def log_prob(self, z):
        """log N(z; μ, diag σ²) = −½ Σ_j ((z_j − μ_j)²/σ_j² + log σ_j² + log 2π).

        Args:
            z: of shape `(..., dim)`, which broadcasts against μ and log σ².

        Returns:
            Nats, of shape `(...)`.
        """
        z, mean, log_var = floats(z, self._mean, self.log_var)
        return self._log_prob(_over_sigma(z - mean, log_var), log_var)

    def kl(self, other=None):
        """KL(q ‖ p) of each dimension, in the shape of μ.

        Args:
            other: p, a `Normal`; by default N(0, I).

        Source: Kingma & Welling (2014), appendix B, for N(0, I).
        """
        if other is None:
            return gaussian_kl(self._mean, self.log_var, axis=None)
        mean, log_var, other_mean, other_log_var = floats(
            self._mean, self.log_var, other._mean, other.log_var
        )
        ratio = log_var - other_log_var
        distance = ops.square(_over_sigma(mean - other_mean, other_log_var))
        return 0.5 * (ops.exp(ratio) + distance - 1.0 - ratio)

    def sample(self, noise):
        """z = μ + σ·ε, with ε ~ N(0, I) from `noise.normal`."""
        return self.sample_with_log_prob(noise)[0]

    def sample_with_log_prob(self, noise, num_samples=None):
        """Draws z = μ + σ·ε and log q(z), computed from ε.

        Where σ is far below μ, z is rounded and (z − μ)/σ is not ε. Then log q(z) of the rounded z
        can be wrong by whole nats; log q computed from ε is right for any σ.

        Args:
            noise: a `vae_tf.layers.Noise`.
            num_samples: how many draws; None is one, without an axis of its own.

        Returns:
            z of shape `(num_samples, *shape of μ)` and log q(z) without z's last axis.
        """
        like = self._mean + ops.zeros_like(self.log_var)
        return self.at(noise.normal(like, num_samples))

    def at(self, epsilon):
        """z = μ + σ·ε and log q(z), for ε of a shape that broadcasts against μ."""
        epsilon = ops.cast(epsilon, self._mean.dtype)
        z = self._mean + ops.exp(0.5 * self.log_var) * epsilon
        return z, self._log_prob(epsilon, self.log_var)

    def _log_prob(self, epsilon, log_var):
        return self._sum(-0.5 * (ops.square(epsilon) + log_var + math.log(2 * math.pi)))

    @staticmethod
    def _sum(values):
        return ops.sum(values, axis=-1)


class PixelNormal(Normal):
    """Independent real pixels x ~ N(μ, σ²): `log_prob` sums over all axes but the first.

    A density's logarithm: it changes with the unit of a pixel, and may be positive.

    Args:
        mean: μ, of shape `(batch, ...)`.
        log_var: log σ², a scalar, one for each pixel, or of the shape of `mean`.

    Source: Kingma & Welling (2014), appendix C.2.
    """

    def log_prob(self, x):
        """log N(x; μ, σ²) summed over the pixels: nats per image, of shape `(batch,)`."""
        return super().log_prob(to_floats(x))

    @staticmethod
    def _sum(values):
        return sum_over_pixels(values)


def gaussian_kl(z_mean, z_log_var, axis=-1):
    """KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ_j (σ_j² + μ_j² − 1 − log σ_j²).

    Args:
        z_mean: μ, of shape `(..., latent_dim)`.
        z_log_var: log σ², of the same shape.
        axis: what to sum over, by default the latent dimensions; None gives each dimension's own.

    Returns:
        The divergence in nats, of shape `(...)`: never negative, and zero only at μ = 0, σ² = 1.

    Example:
        >>> round(float(gaussian_kl([[1.5]], [[math.log(0.25)]])[0]), 4)
        1.4431

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", appendix B.
    """
    z_mean, z_log_var = floats(z_mean, z_log_var)
    each = 0.5 * (ops.exp(z_log_var) + ops.square(z_mean) - 1.0 - z_log_var)
    return each if axis is None else ops.sum(each, axis=axis)


def gaussian_log_prob(z, mean=0.0, log_var=0.0):
    """log N(z; μ, diag σ²) = −½ Σ_j ((z_j − μ_j)²/σ_j² + log σ_j² + log 2π), of shape `(...)`.

    Args:
        z: of shape `(..., dim)`.
        mean, log_var: μ and log σ², which broadcast against z.
    """
    return Normal(mean, log_var).log_prob(z)


def is_standard_normal(distribution):
    """Whether a distribution of codes is N(0, I), as its parameters' values say."""
    if not isinstance(distribution, Normal):
        return False
    parameters = (distribution.mean(), distribution.log_var)
    return not any(ops.convert_to_numpy(parameter).any() for parameter in parameters)


def _over_sigma(difference, log_var):
    """(z − μ)/σ, in two steps: 1/σ itself would overflow, and 0·∞ would be no number."""
    half = ops.exp(-0.25 * log_var)
    return difference * half * half
