"""Images side by side, as one array. Needs NumPy alone."""

import math

import numpy as np

GAP = 1  # pixels between the tiles of a grid
_STRIP = 8  # a vector is drawn as a strip, so many times as wide as it is high


def image_grid(images, columns=None):
    """Tile images into one array `(H, W)` or `(H, W, 3)` of floats, a gap of 0.5 grey between them.

    Args:
        images: the images, row by row.
        columns: tiles in a row; by default the grid is as square as it gets.
    """
    images = as_tiles(images)
    num, height, width, channels = images.shape
    columns = columns or square_columns(num, height, width)
    rows = math.ceil(num / columns)
    grid = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 0.5)
    for index, image in enumerate(images):
        top, left = (height + GAP) * (index // columns), (width + GAP) * (index % columns)
        grid[top : top + height, left : left + width] = image
    return grid[..., 0] if channels == 1 else grid


def square_columns(num, height, width):
    """How many tiles of a size a row has in a grid of `num` whose sides are about equal."""
    return max(1, math.ceil(math.sqrt(num * (height + GAP) / (width + GAP))))


def as_tiles(images):
    """Floats `(N, H, W, 1 or 3)` in [0, 1]. A vector becomes a strip."""
    images = np.asarray(images)
    images = images / 255 if images.dtype == np.uint8 else images.astype("float64").clip(0, 1)
    if images.ndim == 2:
        height = max(1, images.shape[1] // _STRIP)
        images = np.repeat(images[:, None, :], height, axis=1)
    if images.ndim == 3:
        images = images[..., None]
    return images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
