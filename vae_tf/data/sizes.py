"""Images brought to one size, and the memory that they take."""

import math

import numpy as np
from PIL import Image, ImageOps

from vae_tf import memory
from vae_tf.errors import as_typed, check_positive_int, invalid

COPIES = 2  # of the images at a time: a set and its parts, or the parts and the trainer's tensors


def check_size(argument, size):
    """`(height, width)` of 64, '64', '64x48' (height and width) or (64, 48)."""
    parts = size.lower().replace("×", "x").split("x") if isinstance(size, str) else size
    parts = [parts] if hasattr(parts, "__index__") else parts
    try:
        parts = [int(part) if isinstance(part, str) else part for part in parts]
    except (ValueError, TypeError):
        parts = []
    if len(parts) not in (1, 2):
        expected = "a size: N for a square, or HEIGHTxWIDTH such as 64x48"
        raise invalid(argument, expected, f"{argument}={size!r}")
    return tuple(check_positive_int(argument, part) for part in (parts * 2)[:2])


def resized(image, size):
    """An image `(H, W, C)` at `size`: scaled until it covers it, then cut to its centre.

    Bytes stay bytes, and floats floats, within the range that they had.
    """
    if image.dtype == bool:
        image = image * np.uint8(255)
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
    fitted = [
        ImageOps.fit(Image.fromarray(channel), size[::-1], Image.Resampling.LANCZOS)
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(list(map(np.asarray, fitted)), axis=-1), image.min(), image.max())


def resized_all(images, size):
    """Images `(N, H, W, C)`, or any that can be gone through, at `size`; as they are where it is None."""
    if size is None or images.shape[1:3] == size:
        return images
    return np.stack([resized(image, size) for image in images])


def check_room(count, shape, itemsize=1):
    """Refuse images that are more than the memory holds, before they are read.

    Args:
        count: how many.
        shape: of one image.
        itemsize: bytes of a value.
    """
    hint = f"Take fewer of them, or smaller ones: {as_typed('resize', 64)}, for example."
    received = f"{count} images of {described(shape)}, held {COPIES} times at the most"
    memory.check_fits("data", COPIES * count * math.prod(shape) * itemsize, received, hint)


def described(shape):
    """A shape as one reads it: 28×28×1, height first."""
    return "×".join(map(str, shape))
