"""Figures of images in coloured frames, which say what each of them is."""

import numpy as np

from vae_tf.plots.grids import label_rows, show
from vae_tf.plots.tiles import as_tiles, image_grid

RED, GREEN, BLUE, GREY = (0.85, 0.1, 0.1), (0.1, 0.6, 0.2), (0.15, 0.4, 0.85), (0.5, 0.5, 0.5)


def framed(images, colours):
    """Images as tiles `(N, H + 2b, W + 2b, 3)` with a frame of b pixels, a twelfth of a side, around each.

    Args:
        images: the images.
        colours: red, green and blue in [0, 1] for each, `(N, 3)`.
    """
    tiles = as_tiles(images)
    height, width = tiles.shape[1:3]
    border = max(1, round(max(height, width) / 12))
    whole = np.empty((len(tiles), height + 2 * border, width + 2 * border, 3))
    whole[:] = np.asarray(colours, float)[:, None, None]
    whole[:, border:-border, border:-border] = tiles
    return whole


def most_anomalous(images, scores, flags=None, anomalous=None, count=40):
    """The images with the highest scores, row by row, the highest first.

    A frame is red around an anomalous image and blue around a normal one; where that is not known, red
    around one that is flagged.

    Args:
        images: `(N, ...)`.
        scores: `(N,)`.
        flags, anomalous: booleans `(N,)`, or None.
        count: how many.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")[:count]
    marked = flags if anomalous is None else anomalous
    colours = np.full((len(order), 3), GREY)
    if marked is not None:
        colours = np.where(np.asarray(marked)[order][:, None], RED, BLUE)
    frames = "red: anomalous, blue: normal" if anomalous is not None else "red: flagged"
    title = "The highest scores" + (f" ({frames})" if marked is not None else "")
    return show(image_grid(framed(np.asarray(images)[order], colours), min(10, len(order))), title)


def retrieved(queries, found, right, labels=None, title="Queries, and what came back"):
    """A row for each query: the query, then what came back, the nearest first.

    Frames: green around an image of the query's own label, red around another, grey around queries and
    where labels are not known.

    Args:
        queries: `(N, ...)`.
        found: `(N, k, ...)`.
        right: booleans `(N, k)`, or None without labels.
        labels: of the queries, or None; written before the rows.
        title: what it says.
    """
    count, k = found.shape[:2]
    first = framed(queries, np.full((count, 3), GREY))
    colours = np.full((count, k, 3), GREY)
    if right is not None:
        colours = np.where(np.asarray(right)[..., None], GREEN, RED)
    others = framed(found.reshape(-1, *found.shape[2:]), colours.reshape(-1, 3))
    wide = np.ones((first.shape[1], max(2, first.shape[2] // 4), 3))
    between = [np.concatenate([wide[:, :1], tile], axis=1) for tile in others]
    rows = [
        np.concatenate([first[i], wide, *between[i * k : (i + 1) * k]], axis=1)
        for i in range(count)
    ]
    figure = show(image_grid(np.stack(rows), 1), title)
    axes = figure.axes[0]
    if labels is not None:
        axes.set_axis_on()
        axes.set(xticks=[], ylabel="label of the query")
        axes.spines[:].set_visible(False)
        label_rows(axes, labels)
    return figure
