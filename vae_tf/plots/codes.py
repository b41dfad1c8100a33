"""Figures of the latent space."""

import math
from statistics import NormalDist

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vae_tf.plots.grids import image_grid, show

COMPONENTS = ("first component", "second component")


def prior_quantiles(side):
    """The middles of `side` slices of equal mass of the standard normal: Φ⁻¹((i + ½) / side)."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])


def top_infer(decode, side=20):
    """Images decoded over the plane of two latent dimensions, spaced by the Gaussian's quantiles.

    Args:
        decode: from z `(batch, 2)` to images.
        side: images on a side. z₀ grows to the right, z₁ upwards.
    """
    points = prior_quantiles(side)
    z = np.array([(z0, z1) for z1 in points[::-1] for z0 in points], "float32")
    title = "Decoded over the plane, at the prior's quantiles"
    figure = show(image_grid(decode(z), side), title, axis=True)
    _label_quantiles(figure.axes[0], points)
    return figure


def _label_quantiles(axes, points):
    """Latent coordinates on the axes of a `top_infer` grid."""
    height, width = axes.images[0].get_array().shape[:2]
    picks = np.linspace(0, len(points) - 1, min(5, len(points))).round().astype(int)
    labels = [f"{points[i]:.2f}" for i in picks]
    axes.set_xticks((picks + 0.5) * width / len(points), labels)
    axes.set_yticks(height - (picks + 0.5) * height / len(points), labels)
    axes.set(xlabel="$z_0$", ylabel="$z_1$")


def top_label(
    z_mean, labels=None, title="Encodings of the test set", axis_labels=("$z_0$", "$z_1$")
):
    """The codes of images in the plane, coloured by label.

    Args:
        z_mean: `(N, 2)`.
        labels: `(N,)` or None.
        title, axis_labels: what it says.
    """
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    size = np.clip(20_000 / len(z_mean), 4, 25)  # points²: fewer images, larger dots
    if labels is None:
        axes.scatter(*z_mean.T, s=size, color="tab:blue", linewidths=0)
    else:
        names = np.unique(labels)
        for color, label in zip(_colors(len(names)), names, strict=True):
            chosen = z_mean[labels == label].T
            axes.scatter(*chosen, s=size, color=color, linewidths=0, label=str(label))
        scale = 8 / np.sqrt(size)
        axes.legend(markerscale=scale, title="label", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=title, aspect="equal")
    return figure


def _colors(count):
    """As many different colours as there are labels, the familiar ones where they suffice."""
    if count <= 20:
        return matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors[:count]
    return matplotlib.colormaps["turbo"](np.linspace(0, 1, count))


def project(z_mean):
    """The codes `(N, latent_dim)` on the plane of their two largest principal components."""
    centred = z_mean - z_mean.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # in ascending order
    return centred @ directions[:, :-3:-1]


def traversal(decode, z, columns=11, extent=2.5):
    """Each latent dimension moved alone, one to a row, from −`extent` to `extent` (σ of the prior).

    Args:
        decode: from z `(batch, latent_dim)` to images.
        z: the code to start from, `(latent_dim,)`.
    """
    values = np.linspace(-extent, extent, columns)
    codes = np.repeat(np.asarray(z, "float32")[None], len(z) * columns, axis=0)
    codes[np.arange(len(codes)), np.repeat(np.arange(len(z)), columns)] = np.tile(values, len(z))
    figure = show(image_grid(decode(codes), columns), "One latent dimension a row", axis=True)
    axes = figure.axes[0]
    height, width = axes.images[0].get_array().shape[:2]
    rows = np.arange(len(z))
    axes.set_yticks((rows + 0.5) * height / len(z), [f"$z_{{{i}}}$" for i in rows])
    picks = np.array([0, columns // 2, columns - 1])
    axes.set_xticks((picks + 0.5) * width / columns, [f"{values[i]:.1f}" for i in picks])
    return figure


def kl_per_dimension(kl, active=None):
    """The KL of each latent dimension, largest first.

    Args:
        kl: nats, of shape `(latent_dim,)`.
        active: which dimensions are; others are drawn grey.
    """
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(-kl)
    active = np.ones(len(kl), bool) if active is None else active
    colors = ["tab:orange" if active[j] else "lightgrey" for j in order]
    axes.bar(range(len(kl)), kl[order], color=colors)
    axes.set(xlabel="latent dimension (its number below)", ylabel="KL, nats")
    size = 8 if len(kl) <= 30 else 5
    axes.set_xticks(range(len(kl)), order, fontsize=size, rotation=0 if len(kl) <= 30 else 90)
    axes.set_title(f"KL per dimension; {int(active.sum())} of {len(kl)} are active")
    return figure


def aggregate_posterior(z, dimensions):
    """Histograms of draws from q(z), the codes of all images together, against the prior N(0, 1).

    Args:
        z: draws, of shape `(N, latent_dim)`.
        dimensions: which to show.
    """
    columns = min(5, len(dimensions))
    rows = math.ceil(len(dimensions) / columns)
    figure = Figure(figsize=(2.2 * columns, 1.8 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    points = np.linspace(-4, 4, 200)
    for axes in grid.flat[len(dimensions) :]:
        axes.set_visible(False)
    for axes, j in zip(grid.flat, dimensions, strict=False):
        axes.hist(z[:, j], bins=60, range=(-4, 4), density=True, color="tab:blue", alpha=0.6)
        axes.plot(points, np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi), color="black", lw=1)
        axes.set_title(f"z[{j}]", fontsize=8)
    figure.suptitle("Aggregate posterior (blue) against the prior (black)", fontsize=10)
    return figure
