"""What the tests of figures share."""

import io

import numpy as np
from PIL import Image


def noise(num, *shape, seed=0):
    return np.random.default_rng(seed).random((num, *shape))


def shown(axes):
    """The array that axes show, in grey values as they are or in colour, the first row on top."""
    (image,) = axes.images
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "gray"
    assert image.origin == "upper"
    assert axes.yaxis_inverted()
    return np.asarray(image.get_array())


def tiles(grid, height, width):
    """Cut a grid at its gaps of one pixel: `(rows, columns, height, width, ...)`."""
    return np.array(
        [
            [grid[y : y + height, x : x + width] for x in range(0, grid.shape[1], width + 1)]
            for y in range(0, grid.shape[0], height + 1)
        ]
    )


def rendered(figure):
    """A figure's pixels, as a picture of a run has them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    with Image.open(buffer) as picture:
        return np.asarray(picture.convert("L"))
