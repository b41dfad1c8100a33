"""Probability distributions of codes and of pixels: functions of tensors, in nats.

Everything is computed in float32, or in float64 where it is given that, whatever type a network
computes in. No probability is clipped: each formula is written so that it needs none.

Each distribution has `log_prob(x)`, `mean()`, `sample(noise)` and a `support`.
"""

from vae_tf.distributions.normal import (
    Normal,
    PixelNormal,
    gaussian_kl,
    gaussian_log_prob,
    is_standard_normal,
)
from vae_tf.distributions.pixels import Bernoulli, ContinuousBernoulli, DiscretizedLogistic
from vae_tf.distributions.support import BINARY, BYTES, INTERVAL, REAL, Support

__all__ = [
    "BINARY",
    "BYTES",
    "INTERVAL",
    "REAL",
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Normal",
    "PixelNormal",
    "Support",
    "gaussian_kl",
    "gaussian_log_prob",
    "is_standard_normal",
]
