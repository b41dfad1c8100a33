"""Denoise: corrupted images through the code and back, and how near to the originals they come."""

import dataclasses
import functools
import itertools

import numpy as np
import tensorflow as tf

from vae_tf.applications.command import Result
from vae_tf.applications.sources import source_of
from vae_tf.corruptions import get_corruption
from vae_tf.errors import invalid
from vae_tf.evaluation.estimates import ROWS, Estimate, check_seed
from vae_tf.evaluation.report import Section
from vae_tf.layers import PerImage, drawing
from vae_tf.plots.grids import bands
from vae_tf.plots.tiles import as_tiles
from vae_tf.serving.rows import Floats

SHOWN = 10  # images of a picture
FILTER = 11  # pixels on a side of SSIM's window, as in its paper


@dataclasses.dataclass(frozen=True)
class Denoised:
    """Images, floats `(N, *image_shape)`: the originals, as they were corrupted, and as they came back."""

    originals: np.ndarray
    corrupted: np.ndarray
    denoised: np.ndarray

    def quality(self):
        """How near to the originals images are, before and after: `Estimate`s over the images by name.

        `psnr_before`, `psnr_after` and their difference `psnr_gain` in decibels; of pictures also
        `ssim_before`, `ssim_after`, `ssim_gain`, which are at most 1. Images that the corruption has not
        changed are left out: their PSNR is infinite.
        """
        changed = self.changed
        measures = {"psnr": psnr} | ({"ssim": ssim} if self.originals.ndim > 2 else {})
        found = {}
        for name, measure in measures.items():
            images = (self.corrupted[changed], self.denoised[changed])
            before, after = (measure(self.originals[changed], each) for each in images)
            found[f"{name}_before"], found[f"{name}_after"] = map(Estimate.over, (before, after))
            found[f"{name}_gain"] = Estimate.over(after - before)
        return found

    @property
    def changed(self):
        """Which images the corruption has changed, `(N,)`."""
        return (self.corrupted != self.originals).reshape(len(self.originals), -1).any(axis=1)

    def figure(self, title="Denoised", count=SHOWN):
        """The first images: original, corrupted and denoised, under one another."""
        kinds = (self.originals, self.corrupted, self.denoised)
        tiles = np.stack([as_tiles(images[:count]) for images in kinds])
        return bands(tiles, ("original", "corrupted", "denoised"), title, columns=len(tiles[0]))


def denoise(
    source, x, corruption="masking", level=None, seed=0, condition=None, progress=None
):  # fmt: skip
    """Corrupt images, and bring them back through a model's code.

    Args:
        source: whatever `source_of` takes that can reconstruct.
        x: images `(N, *image_shape)`, bytes or floats in [0, 1].
        corruption: "masking", "gaussian", "salt_and_pepper", or a layer from images to images. What it
            makes darker than black or brighter than white becomes black or white.
        level: the share of the pixels, or the σ of "gaussian".
        seed: fixes the noise of each image, whichever others are beside it.
        condition: one for each image, of a model that has conditions.
        progress: called with how many images are done, and of how many.

    Returns:
        A `Denoised`.

    Raises:
        ValueError, TypeError: an argument makes no sense, or the source cannot reconstruct.

    Example:
        >>> found = denoise("runs/digits_default_z5", x_test, "masking", 0.5)  # doctest: +SKIP
        >>> print(found.quality()["psnr_gain"])  # doctest: +SKIP

    Source: Vincent et al. (2010), "Stacked denoising autoencoders", for the corruptions.
    """
    source = source_of(source)
    source.needs("reconstruct", "denoise")
    layer = get_corruption(corruption, level)
    originals = Floats(source.checked(x))[:]
    low, high = originals.min(), originals.max()
    if low < 0 or high > 1:
        expected = "images in [0, 1], or bytes: PSNR and SSIM take white to be 1"
        raise invalid("x", expected, f"values from {low:g} to {high:g}")
    corrupted = corrupt(originals, layer, seed)
    return Denoised(originals, corrupted, source.reconstruct(corrupted, condition, progress))


def corrupt(x, layer, seed=0):
    """Images in [0, 1] through a corruption, in [0, 1] again; the seed and its number fix an image's noise."""
    parts = []
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        with drawing(PerImage(check_seed(seed), np.arange(start, start + len(part)))):
            parts.append(np.clip(tf.convert_to_tensor(layer(part)).numpy(), 0, 1))
    return np.concatenate(parts)


def psnr(x, y):
    """10·log₁₀(1 / MSE) of each image in decibels, white being 1: `(N,)`. Infinite for equal images.

    Args:
        x, y: floats in [0, 1], `(N, *image_shape)`.
    """
    square = (np.float64(x) - np.float64(y)) ** 2
    with np.errstate(divide="ignore"):
        return -10 * np.log10(square.reshape(len(square), -1).mean(axis=1))


def ssim(x, y):
    """The structural similarity of each image: 1 for equal ones, `(N,)`; by `tf.image.ssim`.

    The window has 11×11 pixels, of smaller images as many as the shorter side has (an odd number): 7×7
    of 8×8 digits, whose figures are not to be compared with those of a larger window.

    Args:
        x, y: floats in [0, 1], `(N, H, W)` or `(N, H, W, C)`.

    Source: Wang et al. (2004), "Image quality assessment: from error visibility to structural
    similarity".
    """
    size, parts = ssim_window(x.shape[1:]), []
    for start in range(0, len(x), ROWS):
        pair = (np.float32(each[start : start + ROWS]) for each in (x, y))
        pair = (part.reshape(*part.shape[:3], -1) for part in pair)
        parts.append(tf.image.ssim(*pair, max_val=1.0, filter_size=size).numpy())
    return np.concatenate(parts)


def ssim_window(image_shape):
    """Pixels on a side of the window that `ssim` takes."""
    side = min(FILTER, *image_shape[:2])
    return side - (side + 1) % 2


def check(task):
    task.source.needs("reconstruct", "denoise")
    for name, level in itertools.product(task.config.corruption, task.config.level):
        get_corruption(name, level)


def run(task, progress):
    """Each corruption at each level: a section with the figures and a picture."""
    metrics, sections = {}, []
    for name, level in itertools.product(task.config.corruption, task.config.level):
        title = f"{name} {level:g}"
        found = denoise(
            task.source, task.x, name, level, task.config.seed, task.condition,
            functools.partial(progress, title),
        )  # fmt: skip
        count = int(found.changed.sum())
        quality = found.quality() if count else {}
        rows = [("images that were changed", f"{count} of {len(task.x)}")]
        rows += [_row(*item) for item in quality.items()]
        figures = {title.replace(" ", "_"): found.figure(title)}
        caveats = _of_the_window(task.x.shape[1:]) if not sections else []
        sections.append(Section(title, rows, figures=figures, caveats=caveats))
        metrics[title] = {"images": count} | {k: dataclasses.asdict(v) for k, v in quality.items()}
    return Result({"denoise": metrics}, sections)


def _of_the_window(shape):
    """What SSIM of small images cannot be compared with."""
    if len(shape) == 1 or ssim_window(shape) == FILTER:
        return []
    window = f"SSIM's window is {ssim_window(shape)} pixels wide, for these images are small: "
    return [f"{window}not to be compared with figures of one of {FILTER}."]


def _row(name, value):
    measure, when = name.split("_")
    if measure == "psnr":
        return f"PSNR {when}, dB", value
    return f"SSIM {when}", f"{value.mean:.4f} ± {value.standard_error:.4f}"
