"""What discrete codes carry: how many of them are used, and what they cost with a learned prior."""

import dataclasses
import math

import numpy as np
from keras import ops

from vae_tf.engine.monitor import perplexity
from vae_tf.errors import check_positive_int
from vae_tf.evaluation.estimates import ROWS, Estimate, check_method, checked


@dataclasses.dataclass(frozen=True)
class CodeUsage:
    """`shares`: how often each of the codes is an image's, over all places of the maps, `(K,)`.

    `bits_per_code`: of the model's prior, an `Estimate` over the images; None where it has none.
    """

    shares: np.ndarray
    bits_per_code: Estimate | None

    @property
    def perplexity(self):
        """exp(−Σ_k p_k log p_k): K where all codes are used alike, 1 where there is one."""
        return perplexity(self.shares)

    @property
    def used(self):
        """How many codes are used at all."""
        return int(np.sum(self.shares > 0))


def code_usage(model, x, batch_size=ROWS):
    """How images use the codes of a model, and −log₂ p(k) of its prior for each code of a map.

    Args:
        model: any model with `codes`.
        x: images.
        batch_size: images at once.

    Raises:
        TypeError: the model has no discrete codes.

    Source: van den Oord et al. (2017), "Neural Discrete Representation Learning".
    """
    check_method(model, "codes", "the numbers of discrete codes")
    x, _ = checked(model, x)
    codes = model.codes(x, batch_size=check_positive_int("batch_size", batch_size))
    counts = np.bincount(codes.ravel(), minlength=model.num_codes)
    if model.sample_prior is None:
        return CodeUsage(counts / counts.sum(), None)
    starts, places = range(0, len(x), batch_size), math.prod(codes.shape[1:])
    nats = [ops.convert_to_numpy(-model.log_prior(codes[i : i + batch_size])) for i in starts]
    bits = np.concatenate(nats).astype(np.float64) / (places * math.log(2))
    return CodeUsage(counts / counts.sum(), Estimate.over(bits))
