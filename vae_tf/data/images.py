"""A data set of images: its train and test set, a part held out, and binary draws of it."""

import dataclasses

import numpy as np

from vae_tf.data import FIXED_SEED, HOLD_OUT
from vae_tf.errors import check_positive_int


@dataclasses.dataclass(frozen=True)
class Images:
    """A train and a test set, and one to validate on where the data come with it.

    `x_*`: `(N, H, W, C)`, uint8, bool or float32; `y_*`: labels or None. `factors_*`: of images whose factors of
    variation are known, integers `(N, num_factors)`, the number of each factor's value; else None.
    `factor_names`: theirs; `categorical`: the columns whose values have no order.
    """

    name: str
    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray | None = None
    y_test: np.ndarray | None = None
    x_val: np.ndarray | None = None
    y_val: np.ndarray | None = None
    factors_train: np.ndarray | None = None
    factors_test: np.ndarray | None = None
    factor_names: tuple = ()
    categorical: tuple = ()

    @property
    def image_shape(self):
        return self.x_train.shape[1:]

    def mapped(self, function):
        """The same with `function(x)` in the place of each array of images."""
        names = ("x_train", "x_test", "x_val")
        arrays = {name: getattr(self, name) for name in names}
        return dataclasses.replace(
            self, **{name: function(x) for name, x in arrays.items() if x is not None}
        )


def hold_out(images, fraction):
    """`Images` whose test set is a fixed part of the training images: to validate on.

    Args:
        images: `Images`, whose own test set is left out.
        fraction: how much of the training images to hold out, above 0 and below 1.
    """
    known = images.factors_train, images.factor_names, images.categorical
    return split(images.name, images.x_train, images.y_train, fraction, *known)


def split(name, x, y, fraction=HOLD_OUT, factors=None, factor_names=(), categorical=()):
    """`Images` of one set: a fixed part of it, at least one image and not all, is the test set.

    Args:
        name: the data set's.
        x: images `(N, H, W, C)`.
        y: their labels, or None.
        fraction: how much of the images to hold out.
        factors, factor_names, categorical: of `Images`, where the factors are known.

    Raises:
        ValueError: there are fewer than two images.
    """
    rows = dict(zip(("train", "test"), held_out(len(x), fraction), strict=True))
    arrays = {"x": x, "y": y, "factors": factors}
    parts = {
        f"{key}_{part}": array[chosen]
        for key, array in arrays.items()
        for part, chosen in rows.items()
        if array is not None
    }
    return Images(name, **parts, factor_names=factor_names, categorical=categorical)


def held_out(count, fraction=HOLD_OUT):
    """The numbers of the images to train on, and of those to hold out, of so many; always the same."""
    check_positive_int("data (number of images)", count, minimum=2)
    order = np.random.default_rng(0).permutation(count)
    out = min(max(1, round(fraction * count)), count - 1)
    return np.sort(order[out:]), np.sort(order[:out])


def binarize(images, seed=FIXED_SEED):
    """`Images` whose pixels are drawn once, x ~ Bernoulli(grey value), as booleans.

    Args:
        images: `Images` of bytes, or of floats in [0, 1].
        seed: fixes the draw. The default is that of `--binarize fixed`, the same for every run.

    Source: Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks".
    """
    numbers = iter(range(3))  # of the parts: training, test, validation
    return images.mapped(lambda x: _draw_binary(x, [seed, next(numbers)]))


def _draw_binary(x, seed):
    white = 255 if x.dtype.kind in "ui" else 1
    random = np.random.default_rng(seed)
    return np.stack([random.random(image.shape, np.float32) * white < image for image in x])


def as_bytes(x):
    """Floats that were bytes divided by 255 as these bytes again; other images as they are.

    Floats become float32 in any case.
    """
    if x.dtype.kind != "f":
        return x
    found = np.empty(x.shape, np.uint8)
    for row, image in enumerate(x):
        whole = np.rint(image * 255)
        if not (
            whole.min() >= 0 and whole.max() <= 255 and np.abs(whole - image * 255).max() < 1e-3
        ):
            return x.astype(np.float32, copy=False)
        found[row] = whole
    return found
