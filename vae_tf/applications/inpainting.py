"""Inpaint: fill what is missing of images with what a model makes of the rest."""

import dataclasses
import functools

import numpy as np

from vae_tf.applications.chains import Chain
from vae_tf.applications.command import Result
from vae_tf.applications.masks import mask_of, read_mask
from vae_tf.applications.sources import source_of
from vae_tf.errors import check_positive_int, invalid
from vae_tf.evaluation.estimates import ROWS, Estimate, check_seed
from vae_tf.evaluation.report import Section
from vae_tf.plots.grids import completions
from vae_tf.serving.rows import Floats

SHOWN = 10  # images of a picture
NUM, STEPS = 5, 100  # completions of an image, and steps of each, by default


@dataclasses.dataclass(frozen=True)
class Inpainted:
    """Images that were filled.

    Attributes:
        completions: floats `(num, N, *image_shape)`: what was given, and at the missing pixels E[x|z].
        draws: the same with draws from p(x|z) at the missing pixels; None where none were made.
        missing: which pixels were, booleans `(N, *image_shape)`.
        sampled: whether by alternating sampling; if not, by repeating the reconstruction.
    """

    completions: np.ndarray
    draws: np.ndarray | None
    missing: np.ndarray
    sampled: bool

    @property
    def words(self):
        """What the completions are, and how they were made."""
        if not self.sampled:
            return (
                "filled",
                "the reconstruction, repeated: there is no Gaussian q(z|x) to draw from",
            )
        drawn = "E[x|z] in the place of draws from p(x|z)" if self.draws is None else "p(x|z)"
        return "drawn", f"alternating sampling, q(z|x) and {drawn}"

    def figure(self, truth, count=SHOWN):
        """The first images: what was given, the truth, and the completions."""
        missing = self.missing[:count]
        if missing.ndim == 4:
            missing = missing.any(axis=-1)
        given = ~(missing[:, None] if missing.ndim == 2 else missing)
        return completions(truth[:count], self.completions[:, :count], given, self.words[0])

    def mse(self, truth):
        """The mean square of each image's missing pixels, `(num, N)`; NaN where none is missing."""
        return missing_mse(self.completions, truth, self.missing)


def inpaint(
    source, x, mask, num=None, steps=STEPS, seed=0, condition=None, progress=None
):  # fmt: skip
    """Fill the missing pixels of images.

    With a model that has a Gaussian q(z|x), by alternating sampling, `steps` times

        z ~ q(z|x),  x_missing ~ p(x_missing|z),

    from a draw of z ~ N(0, I); what is given is kept. If q(z|x) is the posterior, this chain's
    draws come to be from p(x_missing|x_given). The pixels are drawn where p(x|z) is at hand and can give
    such images; with an exported or a served model, and of grey values under a Bernoulli, E[x|z] is
    taken in their place. Without q(z|x) the reconstruction is repeated, from black: there is one
    completion, which no distribution is claimed of.

    Args:
        source: whatever `source_of` takes that can encode and decode, or reconstruct.
        x: images `(N, *image_shape)`. Their values at the missing pixels are not looked at.
        mask: True where a pixel is missing: `image_shape`, `(H, W)`, or one for each image; or "left",
            "right", "top", "bottom", "centre", or "random:0.5", each pixel with this probability.
        num: completions of each image, 5 by default.
        steps: of each chain.
        seed: fixes completion k of image i, whatever the others are (up to rounding, which the size of a
            batch may change).
        condition: one for each image, of a model that has conditions.
        progress: called with how many completions are done, and of how many.

    Returns:
        An `Inpainted`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> found = inpaint("runs/digits_default_z5", x_test[:10], "left")  # doctest: +SKIP
        >>> found.completions.shape  # doctest: +SKIP
        (5, 10, 8, 8, 1)

    Source: Rezende, Mohamed & Wierstra (2014), "Stochastic backpropagation and approximate inference in
    deep generative models", appendix F.
    """
    source = source_of(source)
    x, missing = _given(source, x, mask, check_seed(seed))
    chain = Chain(source, x, missing, condition, check_positive_int("steps", steps), seed)
    sampled = can_sample(source)
    num = check_num(num, sampled, source)
    fill = chain.sampled if sampled else chain.repeated
    total, parts = num * len(x), []
    for start in range(0, total, ROWS):
        pairs = np.arange(start, min(start + ROWS, total))
        show = functools.partial(_show, progress, start, len(pairs), total)
        parts.append(fill(pairs % len(x), pairs // len(x), show))
    images, draws = (
        None if kind[0] is None else np.concatenate(kind).reshape(num, *x.shape)
        for kind in zip(*parts, strict=True)
    )
    return Inpainted(images, draws, missing, sampled)


def _show(progress, start, count, total, share):
    """Tell how many completions are done: `share` of the `count` of a batch that begins at `start`."""
    if progress is not None:
        progress(int(start + share * count), total)


def can_sample(source):
    """Whether a source has what alternating sampling needs; raises if it cannot fill in any way."""
    sampled = source.has("posterior") and source.has("decode")
    if not sampled:
        source.needs("reconstruct", "inpaint")
    return sampled


def check_num(num, sampled, source):
    """How many completions of an image: one where nothing is drawn."""
    if num is None:
        return NUM if sampled else 1
    if check_positive_int("num", num) > 1 and not sampled:
        received = f"num={num} with {source.name}, which has no Gaussian q(z|x) to draw from"
        raise invalid("num", "1, for all completions would be equal", received)
    return num


def missing_mse(images, truth, missing):
    """The mean square over the missing pixels of images `(..., N, *image_shape)`: `(..., N)`."""
    axes = tuple(range(-missing.ndim + 1, 0))
    square = np.where(missing, (images - Floats(np.asarray(truth))[:]) ** 2, 0.0)
    with np.errstate(invalid="ignore"):
        return square.sum(axis=axes, dtype=np.float64) / missing.sum(axis=axes)


def _given(source, x, mask, seed):
    """Images as floats, black where pixels are missing, and which are."""
    x = np.asarray(x)
    shape = source.image_shape or x.shape[1:]
    if x.shape[1:] != shape:
        source.checked(x)  # which raises, and says how
    missing = mask_of(mask, shape, len(x), seed)
    x = source.checked(np.where(missing, np.zeros((), x.dtype), x))
    return Floats(x)[:], missing


def check(task):
    check_num(task.config.num, can_sample(task.source), task.source)
    mask_of(read_mask(task.config.mask), task.images.image_shape, len(task.x), task.config.seed)


def run(task, progress):
    """The completions, their errors at the missing pixels, and a picture."""
    config = task.config
    found = inpaint(
        task.source, task.x, read_mask(config.mask), config.num, config.steps, config.seed,
        task.condition, lambda done, total: progress("inpaint", done, total),
    )  # fmt: skip
    errors = _errors(task, found)
    rows = [("missing pixels", f"{found.missing.mean():.1%}")]
    for name, error in errors.items():
        label = name.replace("mse", "MSE").replace("_", " ")
        rows.append((label, f"{error.mean:.4f} ± {error.standard_error:.4f}"))
    figure = found.figure(task.x)
    metrics = {name: dataclasses.asdict(error) for name, error in errors.items()}
    section = Section("Inpaint", [*rows, ("how", found.words[1])], figures={"inpainted": figure})
    return Result({"inpaint": {"missing": float(found.missing.mean())} | metrics}, [section])


def _errors(task, found):
    """Mean squares at the missing pixels of completions, of their mean, and of the training images' mean."""
    known = found.missing.reshape(len(task.x), -1).any(axis=1)
    errors = {"mse_of_a_completion": found.mse(task.x).mean(axis=0)}
    if len(found.completions) > 1:
        mean = found.completions.mean(axis=0)
        errors["mse_of_their_mean"] = missing_mse(mean, task.x, found.missing)
    train = task.images.x_train
    mean = train.mean(axis=0, dtype=np.float64) / (255 if train.dtype == np.uint8 else 1)
    errors["mse_of_the_training_mean"] = missing_mse(mean, task.x, found.missing)
    return {name: Estimate.over(values[known]) for name, values in errors.items()}
