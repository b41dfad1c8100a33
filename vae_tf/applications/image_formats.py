"""Images as PNG and WebP files, in memory: how large they are, and what comes back."""

import io
import math

import numpy as np
from PIL import Image

_LONGEST = 16383  # side of a WebP picture, in pixels


def is_picture(x):
    """Whether PNG and WebP files can hold images: grey or in three colours, from black to white."""
    shaped = x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3))
    return shaped and (x.dtype.kind != "f" or bool(x.min() >= 0 and x.max() <= 1))


def stored(x, kind, options, per_file=None):
    """`(bytes, images)`: the size of images as files of a format, and what is read from them again.

    Args:
        x: images `(N, H, W)` or `(N, H, W, C)`, for which `is_picture` holds. Floats are rounded to bytes.
        kind: "PNG" or "WebP".
        options: what Pillow takes for the format.
        per_file: how many images are tiled in one file; None: as many as it can hold.
    """
    height, width = x.shape[1:3]
    per_file = min(len(x), per_file or (_LONGEST // height) * (_LONGEST // width))
    size, parts = 0, []
    for start in range(0, len(x), per_file):
        images = _bytes(x[start : start + per_file])
        content = _written(_sheet(images), kind, options)
        size += len(content)
        parts.append(_cut(_read(content), images.shape))
    return size, np.concatenate(parts).reshape(x.shape)


def _bytes(x):
    """Images `(N, H, W, C)` as bytes."""
    x = x if x.ndim == 4 else x[..., None]
    return x if x.dtype == np.uint8 else np.rint(255 * x.astype(np.float64)).astype(np.uint8)


def _sheet(images):
    """Images side by side in about as many rows as columns, `(H, W, C)`; what is left over is black."""
    num, height, width, channels = images.shape
    fewest = math.ceil(num / (_LONGEST // height))
    columns = min(max(math.ceil(math.sqrt(num)), fewest), _LONGEST // width)
    rows = math.ceil(num / columns)
    padded = np.zeros((rows * columns, height, width, channels), np.uint8)
    padded[:num] = images
    padded = padded.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return padded.reshape(rows * height, columns * width, channels)


def _cut(sheet, shape):
    """The images `(N, H, W, C)` of a sheet; of a grey one WebP makes three colours."""
    num, height, width, channels = shape
    rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
    tiles = sheet.reshape(rows, height, columns, width, -1).swapaxes(1, 2)
    return tiles.reshape(rows * columns, height, width, -1)[:num, ..., :channels]


def _written(sheet, kind, options):
    grey = sheet.shape[-1] == 1
    picture = Image.fromarray(sheet[..., 0] if grey else sheet)
    if kind == "PNG" and grey and np.isin(sheet, (0, 255)).all():
        picture = picture.convert("1", dither=Image.Dither.NONE)  # a bit a pixel
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _read(content):
    """A picture as bytes `(H, W, C)`."""
    with Image.open(io.BytesIO(content)) as picture:
        array = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    return array[..., None] if array.ndim == 2 else array
