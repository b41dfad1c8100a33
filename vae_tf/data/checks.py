"""What arrays of images must be, and messages that say what is wrong and what mends it."""

import numpy as np

from vae_tf.data import CHANNELS
from vae_tf.errors import InvalidTypeError, as_typed, invalid


def check_images(x, argument="x", value_range=(0.0, 1.0), known_shape=None):
    """Return `x` as an array of images, or say what is wrong with it.

    Args:
        x: `(N, H, W)`, `(N, H, W, C)` or `(N, D)`; uint8 or other integers from 0 to 255, booleans,
            or floats in the range.
        argument: the name that a message gives it.
        value_range: the least and the largest float.
        known_shape: of one image, where a model has been built to it.

    Returns:
        The array: uint8, bool or floating, not copied where that can be helped.

    Raises:
        TypeError: not an array of numbers.
        ValueError: empty, of another rank, channels before height and width, not finite, or out of
            range.
    """
    x = _check_array(x, argument)
    if x.ndim not in (2, 3, 4):
        raise invalid(
            argument,
            "images of shape (N, H, W), (N, H, W, C) or (N, D)",
            f"shape {x.shape}",
            "One image alone is x[None]." if x.ndim == 1 else "",
        )
    if x.size == 0:
        raise invalid(argument, "at least one image", f"an empty array of shape {x.shape}")
    if x.shape[1:] != known_shape:
        _check_channels(x.shape, argument)
    if x.dtype.kind == "f":
        _check_finite(x, argument)
        _check_range(x, argument, value_range)
    elif x.dtype.kind in "ui":
        x = _check_integers(x, argument)
    return x


def some(x, images=100, values=10**7):
    """The first images, no more than so many and of no more values together, but one at least."""
    return x[: max(1, min(images, values // max(1, x[0].size)))]


def _check_array(x, argument):
    """`x` as an array of numbers."""
    try:
        x = np.asarray(x)
    except ValueError as error:
        received = f"rows of different lengths ({error})"
        raise invalid(argument, "images of one size", received) from error
    if x.dtype.kind not in "buif":
        raise invalid(argument, "an array of numbers", f"dtype {x.dtype}", kind=InvalidTypeError)
    return x


def _check_channels(shape, argument):
    """Refuse `(N, C, H, W)`: the last axis has too many entries for channels, the second has not."""
    if len(shape) == 4 and shape[1] in CHANNELS and min(shape[2:]) > max(CHANNELS):
        raise invalid(
            argument,
            "images of shape (N, H, W, C), the channels last",
            f"shape {shape}, the channels before height and width",
            "Transpose them: x.transpose(0, 2, 3, 1), or of tensors tf.transpose(x, (0, 2, 3, 1)).",
        )


def _check_finite(x, argument):
    finite = np.isfinite(x)
    if finite.all():
        return
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    images = (~finite).reshape(len(x), -1).any(axis=1).sum()
    raise invalid(
        argument,
        "finite values",
        f"{np.isnan(x).sum()} NaN and {np.isinf(x).sum()} infinite values in {images} of {len(x)} "
        f"images, the first at index {first}",
        "Repair or drop those images.",
    )


def _check_range(x, argument, value_range):
    low, high = x.min(), x.max()
    if low < value_range[0] or high > value_range[1]:
        received = f"values from {_number(low)} to {_number(high)}"
        raise invalid(argument, "floats in [0, 1]", received, _rescaling(low, high))


def _check_integers(x, argument):
    """`x` as bytes."""
    low, high = int(x.min()), int(x.max())
    if low < 0 or high > 255:
        raise invalid(
            argument,
            "integers from 0 to 255",
            f"values from {low} to {high}",
            "Convert to floats in [0, 1]" + (f": x / {high}." if low >= 0 else "."),
        )
    if high == 1 and x.size > 1:
        raise invalid(
            argument,
            "bytes from 0 to 255",
            "integers that are all 0 or 1",
            "Binary images are given as booleans or floats: x.astype('float32').",
        )
    return x.astype(np.uint8, copy=False)


def _rescaling(low, high):
    """What brings values from `low` to `high` into [0, 1], exactly, in their own precision."""
    if low >= 0:
        divisor = high.dtype.type(255) if 128 <= high <= 255 else high
        factor = _factor(high, divisor)
        return f"Divide by {_number(divisor)} (multiply by {_number(factor)})."
    any_value = f"Or {as_typed('likelihood', 'gaussian')}, which takes floats of any value."
    spread = high - low
    if not 0 < spread < np.inf:
        return f"Values from 0, black, to 1, white, are needed. {any_value}"
    factor = _factor(spread, spread)
    return (
        f"Rescale: (x - {_number(low)}) / {_number(spread)} "
        f"(multiply by {_number(factor)} after the shift). {any_value}"
    )


def _factor(high, divisor):
    """1 / `divisor`, rounded so that `high` times it is not above 1."""
    factor = high.dtype.type(1) / divisor
    while high * factor > 1:
        factor = np.nextafter(factor, factor.dtype.type(0))
    return factor


def _number(value):
    """All digits that tell the value apart in its precision, and no more."""
    if value == 0 or 1e-5 < abs(value) < 1e9:
        return np.format_float_positional(value, trim="-")
    return str(value)


def check_labels(y, count, argument):
    """Labels `(N,)` of `count` images: rows that are one-hot become the numbers of their classes.

    Raises:
        ValueError: there is not one label for each image.
    """
    y = np.asarray(y)
    if y.shape[:1] != (count,):
        received = f"{len(y) if y.ndim else 'no list of'} labels"
        raise invalid(argument, f"one label for each of {count} images", received)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if is_one_hot(y):
        return y.argmax(axis=1)
    if y.ndim != 1 or (y.dtype.kind == "f" and not (y == np.rint(y)).all()):
        received = f"shape {y.shape}" if y.ndim != 1 else f"numbers such as {y[y != np.rint(y)][0]}"
        hint = "Leave them out: labels are not needed. Of several columns choose one: y[:, 0]."
        raise invalid(
            argument, "labels (N,), whole numbers or names, or one-hot rows", received, hint
        )
    return y.astype(np.int64) if y.dtype.kind == "f" else y


def is_one_hot(y):
    """Whether the array's rows each have a single 1, and else zeros.

    >>> is_one_hot(np.eye(3)), is_one_hot(np.arange(3))
    (True, False)
    """
    if y.ndim != 2 or y.dtype.kind not in "buif":
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())
