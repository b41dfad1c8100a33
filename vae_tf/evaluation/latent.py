"""What the codes of a set of images carry."""

import dataclasses
import math

import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf.distributions import Normal, gaussian_kl, is_standard_normal
from vae_tf.engine.monitor import ACTIVE
from vae_tf.errors import InvalidTypeError, InvalidValueError, check_positive_int, invalid
from vae_tf.evaluation.estimates import ROWS, Estimate, at_rows, check_method, checked

MIXTURE = 2000  # draws from the aggregate posterior
HELD = 2**20  # pairs of a draw and a component at once


def codes(model, x, batch_size=ROWS, condition=None):
    """`(z_mean, z_log_var)` of images, each NumPy `(N, latent_dim)`.

    Args:
        model: any model whose posterior is a `distributions.Normal`.
        x: images.
        batch_size: images at once.
        condition: one for each image, of a model that has conditions.

    Raises:
        TypeError: the model has no posterior, or one that is not normal.
    """
    check_method(model, "posterior", "the distribution of the code")
    x, conditions = checked(model, x, condition)
    batch_size = check_positive_int("batch_size", batch_size)
    parts = []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        posterior = model.posterior(x[rows], *map(tf.constant, at_rows(conditions, rows)))
        if not isinstance(posterior, Normal):
            expected = "a model whose posterior is a `distributions.Normal`"
            raise invalid("model", expected, type(posterior).__name__, kind=InvalidTypeError)
        parameters = (posterior.mean(), posterior.log_var)
        parts.append([ops.convert_to_numpy(parameter) for parameter in parameters])
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def draw_codes(z_mean, z_log_var, seed=0):
    """A draw from each image's posterior, together one of q(z): NumPy `(N, latent_dim)`."""
    noise = np.random.default_rng(seed).normal(size=z_mean.shape)
    return z_mean + np.exp(0.5 * z_log_var) * noise


def why_not_latent(model, x, condition=None):
    """Why `latent_statistics` says nothing of a model: it needs a normal q(z|x), and p(z) = N(0, I).

    Args:
        model: any model.
        x, condition: images, of which the first few are tried, and their conditions.

    Returns:
        A phrase, or None where nothing is missing.
    """
    if model.posterior is None:
        return "the model has no `posterior`"
    rows = slice(100)
    x, conditions = checked(model, x[rows], condition if condition is None else condition[rows])
    posterior = model.posterior(x, *map(tf.constant, conditions))
    if not isinstance(posterior, Normal) or len(posterior.mean().shape) != 2:
        return "the posterior is not a normal distribution of a vector"
    if why := why_no_prior(model, conditions):
        return why
    prior = model.prior(*map(tf.constant, conditions))
    return None if is_standard_normal(prior) else "the prior is not N(0, I)"


def why_no_prior(model, conditions=()):
    """Why p(z) of a model is not known: it has none, or refuses to say; None where it is."""
    if model.prior is None:
        return "the model has no `prior`"
    try:
        model.prior(*map(tf.constant, at_rows(conditions, slice(100))))
    except InvalidValueError as error:
        return str(error).removesuffix(".")
    return None


@dataclasses.dataclass(frozen=True)
class LatentStatistics:
    """What the codes of a set of images carry; nats. Of `z_*` per dimension: arrays.

    active_units: dimensions with Var_x E_q[z] > 0.01.
    kl_per_dimension: the mean over images.
    aggregate_mean, aggregate_variance: of q(z), the mixture of the images' q(z|x); 0 and 1 in p(z).
    mutual_information: between z and which of the images it encodes; at most `log_num`.
    aggregate_kl: KL(q(z) ‖ p(z)) = mean KL − mutual information.
    """

    active_units: int
    kl_per_dimension: np.ndarray
    aggregate_mean: np.ndarray
    aggregate_variance: np.ndarray
    mutual_information: Estimate
    aggregate_kl: Estimate
    log_num: float


def latent_statistics(z_mean, z_log_var, seed=0):
    """Active units, KL per dimension, and the aggregate posterior q(z) against the prior N(0, I).

    I(n; z) = E log q(z|x_n) − log q(z) and KL(q(z) ‖ p(z)) = E log q(z) − log p(z), over draws of
    an image n and of z from its posterior, where q(z) is the mean of all N posteriors.

    Args:
        z_mean, z_log_var: of the images, as `codes` gives them.
        seed: fixes the draws.

    Returns:
        `LatentStatistics`. The errors are of the draws, for these images.

    Example:
        >>> found = latent_statistics(*codes(vae, x_test))
        >>> found.active_units, str(found.mutual_information)

    Source: Hoffman & Johnson (2016), "ELBO surgery"; Burda et al. (2016), section 5.2.
    """
    z_mean, z_log_var = (np.asarray(a, np.float64) for a in (z_mean, z_log_var))
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(z_mean), MIXTURE)
    epsilon = random.normal(size=z_mean[chosen].shape)
    z = z_mean[chosen] + np.exp(0.5 * z_log_var[chosen]) * epsilon
    own = -0.5 * (epsilon**2 + z_log_var[chosen] + math.log(2 * math.pi)).sum(axis=1)
    parts = np.array_split(np.arange(MIXTURE), max(1, MIXTURE * len(z_mean) // HELD))
    information = np.concatenate(
        [_information(chosen[rows], epsilon[rows], z_mean, z_log_var) for rows in parts]
    )
    log_prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(axis=1)
    return LatentStatistics(
        active_units=int((z_mean.var(axis=0) > ACTIVE).sum()),
        kl_per_dimension=ops.convert_to_numpy(gaussian_kl(z_mean, z_log_var, axis=None)).mean(0),
        aggregate_mean=z_mean.mean(axis=0),
        aggregate_variance=z_mean.var(axis=0) + np.exp(z_log_var).mean(axis=0),
        mutual_information=Estimate.over(information),
        aggregate_kl=Estimate.over(own - information - log_prior),
        log_num=math.log(len(z_mean)),
    )


def _information(chosen, epsilon, z_mean, z_log_var):
    """log q(z|x_n) − log q(z) at z = μ_n + σ_n·ε, for each draw of an image n and of ε.

    It is log N − log Σ_m q(z|x_m)/q(z|x_n), where the image's own term is 1. So it is at most log N,
    however narrow the posteriors are: z is not rounded, for z − μ_m = (μ_n − μ_m) + σ_n·ε.
    """
    exponents = np.zeros((len(chosen), len(z_mean)))
    for mean, log_var, noise in zip(z_mean.T, z_log_var.T, epsilon.T, strict=True):
        offset = np.exp(0.5 * log_var[chosen]) * noise
        distance = mean[chosen, np.newaxis] - mean
        distance += offset[:, np.newaxis]
        distance *= np.exp(-0.5 * log_var)
        distance *= distance
        exponents -= 0.5 * (distance + log_var)
    own = -0.5 * (epsilon**2 + z_log_var[chosen]).sum(axis=1)
    exponents -= own[:, np.newaxis]
    exponents[np.arange(len(chosen)), chosen] = 0
    top = exponents.max(axis=1)
    sums = np.exp(exponents - top[:, np.newaxis]).sum(axis=1)
    return math.log(len(z_mean)) - (top + np.log(sums))
