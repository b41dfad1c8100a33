"""A data set of images: its train and test set, a part held out, and binary draws of it."""

import dataclasses

import numpy as np

from vae_tf.data import FIXED_SEED, HOLD_OUT
from vae_tf.errors import check_positive_int


@dataclasses.dataclass(frozen=True)
class Images:
    """A train and a test set. `x_*`: `(N, H, W, C)`, uint8, bool or float32; `y_*`: labels or None."""

    name: str
    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray | None = None
    y_test: np.ndarray | None = None

    @property
    def image_shape(self):
        return self.x_train.shape[1:]


def hold_out(images, fraction):
    """`Images` whose test set is a fixed part of the training images: to validate on.

    Args:
        images: `Images`, whose own test set is left out.
        fraction: how much of the training images to hold out, above 0 and below 1.
    """
    return split(images.name, images.x_train, images.y_train, fraction)


def split(name, x, y, fraction=HOLD_OUT):
    """`Images` of one set: a fixed part of it, at least one image and not all, is the test set.

    Args:
        name: the data set's.
        x: images `(N, H, W, C)`.
        y: their labels, or None.
        fraction: how much of the images to hold out.

    Raises:
        ValueError: there are fewer than two images.
    """
    check_positive_int("data (number of images)", len(x), minimum=2)
    order = np.random.default_rng(0).permutation(len(x))
    count = min(max(1, round(fraction * len(x))), len(x) - 1)
    train, test = np.sort(order[count:]), np.sort(order[:count])
    if y is None:
        return Images(name, x[train], x[test])
    return Images(name, x[train], x[test], y[train], y[test])


def binarize(images, seed=FIXED_SEED):
    """`Images` whose pixels are drawn once, x ~ Bernoulli(grey value), as booleans.

    Args:
        images: `Images` of bytes, or of floats in [0, 1].
        seed: fixes the draw. The default is that of `--binarize fixed`, the same for every run.

    Source: Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks".
    """
    return dataclasses.replace(
        images,
        x_train=_draw_binary(images.x_train, [seed, 0]),
        x_test=_draw_binary(images.x_test, [seed, 1]),
    )


def _draw_binary(x, seed):
    white = 255 if x.dtype.kind in "ui" else 1
    random = np.random.default_rng(seed)
    return np.stack([random.random(image.shape, np.float32) * white < image for image in x])
