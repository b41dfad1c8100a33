"""The terms of the evidence lower bound: pure functions, in nats per example."""

from keras import ops


def gaussian_kl(z_mean, z_log_var):
    """KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ_j (σ_j² + μ_j² − 1 − log σ_j²).

    Args:
        z_mean: μ, of shape `(..., latent_dim)`.
        z_log_var: log σ², of the same shape.

    Returns:
        The divergence in nats, of shape `(...)`: never negative, and zero only at μ = 0, σ² = 1.

    Example:
        >>> round(float(gaussian_kl([[1.5]], [[math.log(0.25)]])[0]), 4)
        1.4431

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", appendix B.
    """
    z_mean, z_log_var = ops.convert_to_tensor(z_mean), ops.convert_to_tensor(z_log_var)
    return 0.5 * ops.sum(ops.exp(z_log_var) + ops.square(z_mean) - 1.0 - z_log_var, axis=-1)
