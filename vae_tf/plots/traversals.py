"""The figure of a traversal: each latent dimension moved alone."""

import numpy as np
from matplotlib.figure import Figure

from vae_tf.plots.codes import z_name
from vae_tf.plots.grids import centres, draw_image, label_rows
from vae_tf.plots.tiles import as_tiles, image_grid

OF_PRIOR = "standard deviations of the prior"
OF_CODES = "standard deviations of the codes, from their mean"


def traversal(
    decode, z, columns=11, extent=2.5, *, image=None, name="the image", kl=None, active=None,
    centre=0.0, scale=1.0, unit=OF_PRIOR, rows=20,
):  # fmt: skip
    """Each latent dimension moved alone, one to a row, from −`extent` to `extent`.

    Args:
        decode: from z `(batch, latent_dim)` to images.
        z: the code that all rows start from, `(latent_dim,)`. Its image is shown, too.
        columns, extent: how many values there are in a row, and how far they go.
        image, name: the image that `z` is the code of, or None, and what it is called.
        kl: nats of each dimension, `(latent_dim,)`: rows are in its order, the largest first.
        active: which dimensions are, `(latent_dim,)`; others are marked.
        centre, scale, unit: which value is 0 and how large 1 is, one for all dimensions or one for
            each; and in words.
        rows: the most that are shown.
    """
    z = np.asarray(z, "float32")
    order = np.arange(len(z)) if kl is None else np.argsort(-np.asarray(kl), kind="stable")
    order, steps = order[:rows], np.linspace(-extent, extent, columns)
    codes = np.tile(z, (len(order), columns, 1))
    for row, j in zip(codes, order, strict=True):
        row[:, j] = np.broadcast_to(centre, z.shape)[j] + np.broadcast_to(scale, z.shape)[j] * steps
    start, *moved = as_tiles(decode(np.concatenate([z[None], codes.reshape(-1, len(z))])))
    left, right = _canvas(len(order), columns, start.shape)
    _draw_start(left, start, image, name)
    draw_image(right, image_grid(moved, columns))
    right.set_aspect("auto")  # a vector's strips are made higher
    _label_values(right, steps, unit)
    label_rows(right, [_row_name(j, kl, active) for j in order])
    for text, j in zip(right.get_yticklabels(), order, strict=True):
        text.set_color("black" if active is None or active[j] else "grey")
    right.set_title(_title(len(order), len(z), kl), fontsize=10)
    return right.figure


def _canvas(rows, columns, tile):
    """Axes for the start, and for the rows, in places that the labels leave free; inches."""
    ratio = tile[0] / tile[1]
    high, low = rows * max(8 / columns * ratio, 0.2), (2 * 1.3 + 0.15) * ratio
    height = max(high + 1.1, low + 1.2)
    figure = Figure(figsize=(11.3, height))

    def axes(left, width, high):
        return figure.add_axes(
            [left / 11.3, 1 - (0.5 + high) / height, width / 11.3, high / height]
        )

    return axes(0.15, 1.3, low), axes(3.1, 8.0, high)


def _draw_start(axes, start, image, name):
    axes.set_anchor("N")
    if image is None:
        draw_image(axes, image_grid([start]))
        axes.set_title("every row starts\nfrom this image", fontsize=8)
        return
    draw_image(axes, image_grid([*as_tiles(image[None]), start], 1))
    axes.set_title(name, fontsize=8)
    axes.set_xlabel("and its reconstruction,\nfrom which every\nrow starts", fontsize=8)


def _label_values(axes, steps, unit):
    width = axes.images[0].get_array().shape[1]
    labels = [f"{step:.1f}".replace("-", "−") for step in steps]
    axes.set_xticks(centres(width, len(steps)), labels, fontsize=8)
    axes.set_xlabel(unit, fontsize=9)


def _row_name(dimension, kl, active):
    parts = [z_name(dimension)]
    parts += [] if kl is None else [f"{kl[dimension]:.2f} nats"]
    parts += [] if active is None or active[dimension] else ["inactive"]
    return "  ".join(parts)


def _title(shown, of, kl):
    title = "One latent dimension a row" + ("" if kl is None else ", by KL")
    which = "first" if kl is None else "largest"
    return title if shown == of else f"{title}; the {which} {shown} of {of}"
