"""Figures of clusters of codes."""

import numpy as np
from matplotlib.figure import Figure

from vae_tf.plots.codes import scatter_by_label
from vae_tf.plots.grids import image_rows


def clustered(points, numbers, labels=None, names=("", ""), title="Clusters of codes"):
    """Codes on a plane, coloured by cluster, and beside that by label.

    Args:
        points: `(N, 2)`.
        numbers: the cluster of each, `(N,)`, from 0 on.
        labels: `(N,)`, or None for one panel alone.
        names: of the two axes.
        title: what it says.
    """
    kinds = {"cluster": np.asarray(numbers)} | ({} if labels is None else {"label": labels})
    figure = Figure(figsize=(7 * len(kinds) + 0.5, 6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    size = np.clip(20_000 / len(points), 4, 25)
    for axes, (what, each) in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
    ):
        scatter_by_label(axes, np.asarray(points), np.asarray(each), size, what)
        axes.set(xlabel=names[0], ylabel=names[1], title=f"by {what}")
    return figure


def nearest_to_centres(
    images, title="The images nearest to each cluster's centre, the nearest first"
):
    """A row of images for each cluster, `(num_clusters, count, *image_shape)`."""
    return image_rows(images, [f"cluster {number}" for number in range(len(images))], title=title)
