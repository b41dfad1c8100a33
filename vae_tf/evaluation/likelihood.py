"""The log-likelihood of images, by importance sampling."""

import dataclasses
import math

import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf.engine.loop import compiled
from vae_tf.errors import check_positive_int, invalid
from vae_tf.evaluation.estimates import (  # fmt: skip
    ROWS,
    Estimate,
    at_rows,
    batches,
    check_method,
    check_seed,
    checked,
)
from vae_tf.layers import PerImage, drawing

CURVE = (1, 5, 50, 500, 5000)
SAMPLES = 100_000  # of an image whose weights are held at once
FEW = 10  # effective samples below which an image's estimate is not to be trusted


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """`log_likelihood`'s result; arrays have one value an image, in nats.

    per_image: log p(x), estimated with all `num_samples` draws.
    curve: the mean over images for each K, as `Estimate`s; it rises with K towards log p(x).
    gaps: for each K how far its estimate is below that of all draws: `Estimate`s of the images' own
        differences. The images' spread, which all K share, is not in their errors.
    effective_sample_size: (Σ w)² / Σ w², between 1 and `num_samples`; 0 where every weight is 0.
    """

    num_samples: int
    per_image: np.ndarray
    curve: dict
    gaps: dict
    effective_sample_size: np.ndarray

    @property
    def estimate(self):
        """The mean over the images. Its error has that of the draws in it, which are each image's own."""
        return Estimate.over(self.per_image)

    @property
    def sampling_error(self):
        """The part of the error that is of the draws: what other seeds would change of these images.

        By the delta method, Var[log mean w] ≈ Var[w] / (K E[w]²) = 1/ESS − 1/K for each image. Where
        the effective sample size is small this is too little, and the estimate too low.
        """
        with np.errstate(divide="ignore"):
            variances = 1 / self.effective_sample_size - 1 / self.num_samples
        return float(np.sqrt(np.maximum(variances, 0).sum()) / len(variances))

    @property
    def few(self):
        """How many images have an effective sample size below 10."""
        return int((self.effective_sample_size < FEW).sum())

    @property
    def size_percentiles(self):
        """The 5th and the 50th percentile of the effective sample size."""
        return [float(size) for size in np.percentile(self.effective_sample_size, [5, 50])]


def log_likelihood(
    model,
    x,
    num_samples=5000,
    seed=0,
    batch_size=20,
    curve=CURVE,
    progress=None,
    condition=None,
):
    """log p(x) ≈ logmeanexp_k (log p(x, z_k) − log q(z_k|x)), by importance sampling.

    The estimate's expectation is a lower bound that rises with the number of samples K. For the
    curve, the same draws are cut into groups of K, and the groups' estimates averaged.

    Args:
        model: any model with `log_weights`.
        x: images that p(x|z) can give: binary ones for a Bernoulli.
        num_samples: draws of z an image, K.
        seed: a non-negative integer below 2⁶³; the draws are those of an image's number and the seed.
        batch_size: images at once.
        curve: values of K, of which those up to `num_samples` are reported.
        progress: called with the images done and their number, a batch at a time.
        condition: one for each image, of a model that has conditions.

    Returns:
        A `LogLikelihood`: of the images that were done, if Ctrl-C came in between.

    Raises:
        ValueError: an argument makes no sense, or p(x|z) has no such images, such as grey values
            under a Bernoulli.
        TypeError: the model has no `log_weights`.

    Example:
        >>> result = log_likelihood(vae, x_test[:100] > 127, num_samples=500)
        >>> print(result.estimate)

    Source: Burda, Grosse & Salakhutdinov (2016), "Importance Weighted Autoencoders", equation 8.
    """
    check_method(model, "log_weights", "from which log p(x) is estimated")
    x, conditions = checked(model, x, condition)
    check_support(model, x)
    num_samples = check_positive_int("num_samples", num_samples)
    batch_size = min(check_positive_int("batch_size", batch_size), ROWS, len(x))
    curve = {check_positive_int("curve", k) for k in curve}
    ks = sorted({k for k in curve if k <= min(num_samples, SAMPLES)} | {num_samples})
    draw = _sampler(model, check_seed(seed))
    done = []
    try:
        for rows in batches(len(x), batch_size):
            parts = _batch(draw, (x[rows], rows, at_rows(conditions, rows)), num_samples, ks)
            done.append(parts[:, : len(x) - rows[0]])
            if progress is not None:
                progress(rows[-1] + 1, len(x))
    except KeyboardInterrupt:
        if not done:
            raise
    *means, sizes = np.concatenate(done, axis=1)
    each = dict(zip(ks, means, strict=True))
    curve = {k: Estimate.over(values) for k, values in each.items()}
    with np.errstate(invalid="ignore"):  # weights that are all 0 are −∞ for every K
        gaps = {k: Estimate.over(means[-1] - values) for k, values in each.items()}
    del gaps[num_samples]
    return LogLikelihood(num_samples, means[-1], curve, gaps, sizes)


def check_support(model, x):
    """Raise if p(x|z) cannot give such images, so that its figure is no log-likelihood."""
    if model.likelihood.support.contains(x):
        return
    if model.likelihood.support.kind == "binary":
        raise invalid(
            "x",
            "binary images: on grey values a Bernoulli's figure is no log-likelihood",
            "grey values",
            "Binarise them: --binarize dynamic or fixed, or vae_tf.data.binarize. Or train with the "
            "likelihood 'continuous_bernoulli', which grey values have.",
        )
    low, high = model.value_range
    expected = f"values that p(x|z) can give, from {low:g} to {high:g}"
    if model.likelihood.support.kind == "bytes":
        expected = "bytes (uint8), or floats k/255 of whole k, which p(x|z) can give"
    raise invalid("x", expected, f"{x.dtype} from {x.min():g} to {x.max():g}")


def _batch(draw, batch, num_samples, ks):
    """For each image: the estimate for each K, then the effective sample size."""
    totals, squares = [], []
    sums, counts = dict.fromkeys(ks[:-1], 0.0), dict.fromkeys(ks[:-1], 0)
    for first in range(0, num_samples, SAMPLES):
        count = min(SAMPLES, num_samples - first)
        weights = draw(*batch, first, count)
        totals.append(_logsumexp(weights))
        squares.append(_logsumexp(2 * weights))
        for k in sums:
            whole = weights[: count // k * k].reshape(-1, k, weights.shape[1])
            sums[k] += (_logsumexp(whole, axis=1) - math.log(k)).sum(axis=0)
            counts[k] += len(whole)
    total, square = _logsumexp(np.stack(totals)), _logsumexp(np.stack(squares))
    curve = [sums[k] / counts[k] for k in sums]
    sizes = np.exp(2 * total - np.where(np.isneginf(square), np.inf, square))
    return np.stack([*curve, total - math.log(num_samples), sizes])


def _sampler(model, seed):
    """A function of images, their numbers and conditions, of the first draw and how many.

    It gives log-weights `(count, batch)`, whose draws are those of (seed, number of the image, number
    of the draw). The codes are decoded in chunks, in one compiled loop.
    """

    def run(x, numbers, conditions, first, chunks, size):
        x, rows = model.to_floats(x), x.shape[0]

        def body(index, chunked):
            with drawing(PerImage(seed, numbers, first_sample=first + index * size)):
                weights = model.log_weights(x, size, *conditions)
            return index + 1, chunked.write(index, ops.cast(weights, "float32"))

        chunked = tf.TensorArray(tf.float32, chunks, element_shape=(size, rows))
        chunked = tf.while_loop(lambda index, _: index < chunks, body, (0, chunked))[1]
        return tf.reshape(chunked.stack(), (chunks * size, rows))

    run = compiled(run, jit_compile=model.suits_xla)

    def draw(x, numbers, conditions, first, count):
        size = min(max(1, ROWS // len(x)), count)
        tensors = tf.nest.map_structure(tf.constant, (x, numbers, conditions, first))
        return run(*tensors, -(-count // size), size).numpy()[:count].astype(np.float64)

    return draw


def _logsumexp(values, axis=0):
    top = values.max(axis=axis)
    shift = np.where(np.isneginf(top), 0, top)  # weights that are all 0 have no largest one
    with np.errstate(divide="ignore"):
        return shift + np.log(np.exp(values - np.expand_dims(shift, axis)).sum(axis=axis))
