"""Images in two parts: the quadrants that are given, and the rest, which is to be predicted."""

import dataclasses

import numpy as np

from vae_tf.data import QUADRANTS
from vae_tf.data.images import Images
from vae_tf.errors import check_choice, invalid


def given_pixels(num, image_shape):
    """Which pixels are given, as booleans `(H, W)`.

    1 is the quadrant below on the left, 2 are the left half, 3 all but the quadrant below on the right.

    Args:
        num: 1, 2 or 3.
        image_shape: `(H, W)` or `(H, W, C)`; of an odd side the second half is the longer one.

    Source: Sohn, Lee & Yan (2015), section 5.1, in the order of Pyro's example `cvae`.
    """
    num = check_choice("quadrants", num, QUADRANTS)
    if len(image_shape) < 2 or min(image_shape[:2]) < 2:
        expected = "images with a height and a width of 2 pixels at least, for their quadrants"
        raise invalid("data", expected, f"images of shape {tuple(image_shape)}")
    row, column = np.indices(image_shape[:2])
    lower, left = row >= image_shape[0] // 2, column < image_shape[1] // 2
    return {1: lower & left, 2: left, 3: left | ~lower}[num]


@dataclasses.dataclass(frozen=True)
class Quadrants(Images):
    """`Images` of which `x_*` is the rest and `y_*` what is given, as vectors `(N, values)`.

    given: which pixels are, `(H, W)`; whole_shape: of the images that they were.
    """

    given: np.ndarray | None = None
    whole_shape: tuple = ()

    def joined(self, x, y):
        """The whole images `(N, *whole_shape)`, floats, of the rest and of what is given."""
        whole = np.empty((len(x), *self.whole_shape), np.float32)
        for pixels, values in ((~self.given, x), (self.given, y)):
            whole[:, pixels] = _floats(values).reshape(whole[:, pixels].shape)
        return whole


def with_quadrants(images, num):
    """`Images` for a model that predicts the rest of an image from some of its quadrants.

    `x_*` are the pixels of the rest, as they came, and `y_*` the given ones, as floats: the condition
    of a `ConditionalVAE`. Labels are left out.

    Args:
        images: `Images` with a height and a width.
        num: how many quadrants are given: 1, 2 or 3.

    Raises:
        ValueError: there are other than 1 to 3, or the images have no quadrants.

    Example:
        >>> parts = with_quadrants(load("digits"), 1)
        >>> parts.x_test.shape, parts.y_test.shape
        ((360, 48), (360, 16))
    """
    given = given_pixels(num, images.image_shape)
    arrays = {}
    for part in ("train", "test", "val"):
        x = getattr(images, f"x_{part}")
        arrays[f"x_{part}"] = None if x is None else x[:, ~given].reshape(len(x), -1)
        arrays[f"y_{part}"] = None if x is None else _floats(x[:, given]).reshape(len(x), -1)
    return Quadrants(images.name, **arrays, given=given, whole_shape=images.image_shape)


def _floats(values):
    """Bytes come to [0, 1], as in `Model.to_floats`."""
    values = np.asarray(values)
    floats = values.astype(np.float32)
    return floats * np.float32(1 / 255) if values.dtype == np.uint8 else floats
