"""The terms of the evidence lower bound: pure functions, in nats per example."""

import math

from keras import ops


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
    z_mean, z_log_var = ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var)
    each = 0.5 * (ops.exp(z_log_var) + ops.square(z_mean) - 1.0 - z_log_var)
    return each if axis is None else ops.sum(each, axis=axis)


def gaussian_log_prob(z, mean=0.0, log_var=0.0):
    """log N(z; μ, diag σ²) = −½ Σ_j ((z_j − μ_j)²/σ_j² + log σ_j² + log 2π), of shape `(...)`.

    Args:
        z: of shape `(..., dim)`.
        mean, log_var: μ and log σ², which broadcast against z.
    """
    log_var = log_var + ops.zeros_like(z)
    each = ops.square(z - mean) * ops.exp(-log_var) + log_var + math.log(2 * math.pi)
    return -0.5 * ops.sum(each, axis=-1)
