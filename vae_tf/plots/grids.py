"""Images in a grid."""

import math

import numpy as np
from matplotlib.figure import Figure

GAP = 1  # pixels between the tiles of a grid


def image_grid(images, columns=None):
    """Tile images into one array `(H, W)` or `(H, W, 3)` of floats, a gap of 0.5 grey between them.

    Args:
        images: the images, row by row.
        columns: tiles in a row; by default the grid is as square as it gets.
    """
    images = _as_tiles(images)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    _, height, width, channels = images.shape
    grid = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 0.5)
    for index, image in enumerate(images):
        top, left = (height + GAP) * (index // columns), (width + GAP) * (index % columns)
        grid[top : top + height, left : left + width] = image
    return grid[..., 0] if channels == 1 else grid


def reconstruct(originals, reconstructions, columns=20):
    """Originals beside their reconstructions: columns count from 0, the even ones reconstructed."""
    pairs = np.stack([_as_tiles(reconstructions), _as_tiles(originals)], axis=1)
    return show(
        image_grid(pairs.reshape(-1, *pairs.shape[2:]), columns),
        f"{len(pairs)} test images: even columns (from 0) reconstructed, odd columns real",
    )


def generated(images, title="Decoded draws from the prior", columns=None):
    """A grid of images, row by row; as square as it gets where `columns` is not given."""
    return show(image_grid(images, columns), title)


def extremes(images, log_probs, count=20):
    """The least likely images above, the most likely below."""
    order = np.argsort(log_probs)
    count = min(count, len(images))
    chosen = np.concatenate([images[order[:count]], images[order[::-1][:count]]])
    return show(image_grid(chosen, count), "Least likely images above, most likely below")


def show(grid, title, axis=False):
    """One array of `image_grid`, at a size that keeps its proportions; its axes only if asked for."""
    height, width = grid.shape[:2]
    scale = 8 / max(height, width)
    figure = Figure(figsize=(max(3, width * scale), height * scale + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    if not axis:
        axes.set_axis_off()
    return figure


def _as_tiles(images):
    """Floats `(N, H, W, 1 or 3)` in [0, 1]."""
    images = np.asarray(images)
    images = images / 255 if images.dtype == np.uint8 else images.astype("float64").clip(0, 1)
    if images.ndim == 2:
        images = images[:, None, :]
    if images.ndim == 3:
        images = images[..., None]
    return images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
