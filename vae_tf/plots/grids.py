"""Figures of images in a grid."""

import numpy as np
from matplotlib.figure import Figure

from vae_tf.errors import check_choice
from vae_tf.plots.tiles import GAP, as_tiles, image_grid, square_columns

ARRANGEMENTS = ("rows", "columns")
PAIRS = "{} images: even columns (from 0) reconstructed, odd columns real"


def reconstruct(originals, reconstructions, columns=None, arrangement="rows"):
    """Originals and their reconstructions.

    Args:
        originals, reconstructions: as many images each.
        columns: images in a row; by default as many as make a picture twice as wide as it is high.
        arrangement: "rows" has each original above its reconstruction, in rows that say which they
            are. "columns" is the original program's: one grid, by default of 20 columns, of which,
            counted from 0, the even ones are reconstructed and the odd ones real.
    """
    check_choice("arrangement", arrangement, ("rows", "columns"))
    pairs = np.stack([as_tiles(originals), as_tiles(reconstructions)])
    num = len(originals)
    if arrangement == "columns":
        tiles = pairs[::-1].swapaxes(0, 1).reshape(-1, *pairs.shape[2:])
        title = f"{num} images: even columns (from 0) reconstructed, odd columns real"
        return show(image_grid(tiles, columns or 20), title)
    title = f"{num} images, each above its reconstruction" if num > 1 else "An image"
    return bands(pairs, ("original", "reconstruction"), title, columns)


def generated(images, title="Decoded draws from the prior", columns=None):
    """A grid of images, row by row; as square as it gets where `columns` is not given."""
    return show(image_grid(images, columns), title)


def extremes(images, log_probs, count=20):
    """The least likely images above, the most likely below."""
    order = np.argsort(log_probs)
    chosen = np.stack([as_tiles(images[order[:count]]), as_tiles(images[order[::-1][:count]])])
    return bands(chosen, ("least likely", "most likely"), "The extremes of log p(x)")


def classes(rows, labels, title):
    """A row of images for each label, which is written before it."""
    figure = show(image_grid(np.concatenate(rows), len(rows[0])), title)
    figure.axes[0].set_axis_on()
    figure.axes[0].set(xticks=[], ylabel="label")
    figure.axes[0].spines[:].set_visible(False)
    label_rows(figure.axes[0], labels)
    return figure


def image_rows(images, rows, columns=(), title=""):
    """A row of images each, `(rows, columns, *image_shape)`, with the names of the rows and columns."""
    images = np.asarray(images)
    num = images.shape[1]
    figure = show(image_grid(images.reshape(-1, *images.shape[2:]), num), title)
    axes = figure.axes[0]
    axes.set_axis_on()
    axes.spines[:].set_visible(False)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 1, height + (0.3 if columns else 0))  # for the names
    label_rows(axes, rows)
    if columns:
        axes.set_xticks(centres(axes.images[0].get_array().shape[1], num), columns, fontsize=8)
        axes.tick_params(axis="x", length=0)
    return figure


def completions(originals, completed, given, how="drawn"):
    """What is given of images, the images, and what a model makes of the rest; blue is what is given.

    Args:
        originals: images `(N, H, W, C)`.
        completed: several of each, `(several, N, H, W, C)`.
        given: which pixels are, `(H, W)`, or of each image `(N, H, W)`.
        how: in a word, the rest came to be.
    """
    whole, *made = (
        np.broadcast_to(t, (*t.shape[:-1], 3)) for t in map(as_tiles, [originals, *completed])
    )
    known = given[..., np.newaxis]
    first = np.where(known, _blue(whole), 0.5)
    rows = [first, whole, *(np.where(known, _blue(tiles), tiles) for tiles in made)]
    labels = ["given", "image", how, *[""] * (len(made) - 1)]
    return bands(np.stack(rows), labels, f"The rest of images, {how} from what is given (blue)")


def _blue(tiles):
    return 0.7 * tiles + 0.3 * np.array([0.1, 0.45, 1.0])


def show(grid, title):
    """One array of `image_grid`, at a size that keeps its proportions."""
    height, width = grid.shape[:2]
    scale = 8 / max(height, width)
    figure = Figure(figsize=(max(3, width * scale), height * scale + 0.6), layout="constrained")
    axes = figure.subplots()
    draw_image(axes, grid)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    return figure


def draw_image(axes, grid):
    """An array of `image_grid` on axes, without ticks."""
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def label_rows(axes, labels):
    """A label for each row of the grid that axes show."""
    height = axes.images[0].get_array().shape[0]
    axes.set_yticks(centres(height, len(labels)), labels, fontsize=8)
    axes.tick_params(axis="y", length=0)


def centres(length, count):
    """Where the middles of `count` tiles are, on axes that show them in `length` pixels."""
    return (np.arange(count) + 0.5) * (length + GAP) / count - (GAP + 1) / 2


def bands(kinds, labels, title, columns=None):
    """Images of several kinds, `(kinds, N, H, W, C)`, under one another in labelled rows."""
    rows, num, height, width, _ = kinds.shape
    columns = min(num, columns or square_columns(2 * num, rows * height, width))
    bands = [kinds[:, i : i + columns] for i in range(0, num, columns)]
    size = min(1.2, 8 / columns)  # inches that an image is wide
    inches = size * columns + 1.2, (rows * size * height / width + 0.08) * len(bands) + 0.4
    figure = Figure(figsize=(max(3.5, inches[0]), inches[1]), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, band in zip(figure.subplots(len(bands), squeeze=False)[:, 0], bands, strict=True):
        draw_image(axes, image_grid(band.reshape(-1, *band.shape[2:]), band.shape[1]))
        label_rows(axes, labels)
        axes.set_xlim(-0.5, columns * (width + GAP) - GAP - 0.5)  # the last may be shorter
        axes.spines[:].set_visible(False)
        axes.set_anchor("W")  # where it is centred, the layout leaves the labels no room
    return figure
