"""Which pixels of images are missing: by name, or as an array."""

import pathlib

import numpy as np

from vae_tf.corruptions import check_share
from vae_tf.errors import InvalidTypeError, invalid

REGIONS = {
    "left": lambda height, width: (slice(None), slice(0, width // 2)),
    "right": lambda height, width: (slice(None), slice(width // 2, None)),
    "top": lambda height, width: (slice(0, height // 2), slice(None)),
    "bottom": lambda height, width: (slice(height // 2, None), slice(None)),
    "centre": lambda height, width: (
        slice(height // 4, height - height // 4),
        slice(width // 4, width - width // 4),
    ),
}
_EXPECTED = f"{', '.join(map(repr, REGIONS))}, 'random:0.5', or booleans that are True where a pixel is missing"


def mask_of(mask, image_shape, num, seed=0):
    """Which pixels of `num` images are missing, booleans `(num, *image_shape)`.

    Args:
        mask: a name of `REGIONS`; "random:0.5", which draws each pixel of each image (all its colours
            together) with this probability; or booleans: `image_shape` or `(H, W)` for all images,
            `(num, *image_shape)` or `(num, H, W)` for each.
        image_shape: without the batch. A vector is taken as one row.
        num: how many images.
        seed: of "random"; image i has the same mask whatever `num` is.

    Raises:
        ValueError, TypeError: it is none of these, has another shape, or leaves nothing to fill.
    """
    if isinstance(mask, str):
        missing = _named(mask, image_shape, num, seed)
    else:
        missing = _given(np.asarray(mask), tuple(image_shape), num)
    missing = np.broadcast_to(missing, (num, *image_shape))
    if not missing.any():
        raise invalid("mask", "at least one missing pixel", "none")
    return missing


def read_mask(text):
    """A mask as the command is given it: a name, or a .npy file."""
    if not text.endswith(".npy"):
        return text
    if not pathlib.Path(text).is_file():
        raise invalid("mask", "a .npy file of booleans", f"{text!r}, which does not exist")
    return np.load(text, allow_pickle=False)


def _named(name, image_shape, num, seed):
    plane, colours = image_shape[:2], (1,) * len(image_shape[2:])
    kind, _, share = name.partition(":")
    if kind == "random" and share:
        draws = np.random.default_rng([seed, 0x6D61]).random((num, *plane, *colours))
        return draws < check_share("mask", _number(share, name))
    flat = len(image_shape) == 1
    if name not in REGIONS or (flat and name in ("top", "bottom")):
        received = f"{name!r}, of vectors" if name in REGIONS else repr(name)
        raise invalid("mask", _EXPECTED, received)
    missing = np.zeros((1, *plane) if flat else plane, bool)
    missing[REGIONS[name](*missing.shape)] = True
    return missing.reshape(*plane, *colours)


def _number(share, name):
    try:
        return float(share)
    except ValueError:
        raise invalid("mask", "'random:' and a number from 0 to 1", repr(name)) from None


def _given(mask, image_shape, num):
    """A mask for all images or for each, of a shape that broadcasts against them."""
    if mask.dtype != bool:
        hint = "mask.astype(bool) makes them of 0 and 1."
        raise invalid("mask", _EXPECTED, f"values of {mask.dtype}", hint, InvalidTypeError)
    shapes = dict.fromkeys([image_shape, image_shape[:2]])
    if mask.shape in shapes:
        one = mask[None]
    elif mask.shape in [(num, *shape) for shape in shapes]:
        one = mask
    else:
        shapes = [*shapes, *((num, *shape) for shape in shapes)]
        raise invalid("mask", f"shape {' or '.join(map(str, shapes))}", f"shape {mask.shape}")
    return one.reshape(*one.shape, *(1,) * (len(image_shape) + 1 - one.ndim))
