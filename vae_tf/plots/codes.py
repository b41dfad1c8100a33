"""Figures of the latent space. Its dimensions are counted from one: z₁, z₂, ..."""

import math
from statistics import NormalDist

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vae_tf.errors import invalid, printable
from vae_tf.plots.grids import centres, show
from vae_tf.plots.tiles import image_grid

_LEGEND = 50  # labels that a legend has room for


def z_name(dimension):
    """The name of a latent dimension in a figure: z₁ for number 0 of an array."""
    return f"$z_{{{dimension + 1}}}$"


def label_text(label):
    r"""A label as matplotlib is to show it: it takes $...$ for mathematics, and leaves out "_...".

    >>> label_text("5$"), label_text("_x")
    ('5\\$', ' _x')
    """
    text = printable(str(label)).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def prior_quantiles(side):
    """The middles of `side` slices of equal mass of the standard normal: Φ⁻¹((i + ½) / side)."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)])


def latent_plane(decode, side=20):
    """Images decoded over the plane of two latent dimensions, spaced by the Gaussian's quantiles.

    Args:
        decode: from z `(batch, 2)` to images.
        side: images on a side. z₁ grows to the right, z₂ upwards.
    """
    points = prior_quantiles(side)
    z = np.array([(z1, z2) for z2 in points[::-1] for z1 in points], "float32")
    figure = show(image_grid(decode(z), side), "Decoded over the plane, at the prior's quantiles")
    axes = figure.axes[0]
    axes.set_axis_on()
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 0.7, height + 0.3)  # for the labels
    height, width = axes.images[0].get_array().shape[:2]
    picks = np.linspace(0, side - 1, min(5, side)).round().astype(int)
    labels = [f"{points[i]:.2f}" for i in picks]
    axes.set_xticks(centres(width, side)[picks], labels)
    axes.set_yticks(centres(height, side)[::-1][picks], labels)
    axes.set(xlabel=z_name(0), ylabel=z_name(1))
    return figure


def encodings(z_mean, labels=None, title="Encodings of the test set"):
    """The codes of images in the plane, coloured by label; of more than two dimensions the projection.

    Args:
        z_mean: `(N, latent_dim)`, of two dimensions or more.
        labels: `(N,)` or None.
        title: what it says.
    """
    names = z_name(0), z_name(1)
    if z_mean.shape[1] > 2:
        z_mean, shares = project(z_mean)
        which = zip(("first", "second"), shares, strict=True)
        names = [f"{name} component ({share:.0%} of the variance)" for name, share in which]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    size = np.clip(20_000 / len(z_mean), 4, 25)  # points²: fewer images, larger dots
    if labels is None:
        axes.scatter(*z_mean.T, s=size, color="tab:blue", linewidths=0)
    else:
        scatter_by_label(axes, z_mean, np.asarray(labels), size)
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    axes.set_aspect("equal", adjustable="datalim")  # one unit is one length, on a full canvas
    return figure


def scatter_by_label(axes, z, labels, size, what="label"):
    """Points `(N, 2)` on axes, a colour for each label; `what` the labels are, in the legend."""
    if labels.shape != z.shape[:1]:
        raise invalid("labels", f"one for each of the {len(z)} codes", f"shape {labels.shape}")
    names, which = np.unique(labels, return_inverse=True)
    colors = _colors(len(names))
    if len(names) > _LEGEND:
        axes.scatter(*z.T, s=size, c=np.asarray(colors)[which], linewidths=0)
        axes.annotate(
            f"{len(names)} {what}s, a colour each", (0.01, 0.01), xycoords="axes fraction"
        )
        return
    for index, name in enumerate(names):
        chosen = z[which == index].T
        axes.scatter(*chosen, s=size, color=colors[index], linewidths=0, label=label_text(name))
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": math.ceil(len(names) / 25)}
    axes.legend(markerscale=8 / np.sqrt(size), title=what, **place)


def _colors(count):
    """As many different colours as there are labels, the familiar ones where they suffice."""
    if count <= 20:
        return matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors[:count]
    return matplotlib.colormaps["turbo"](np.linspace(0, 1, count))


def project(z_mean):
    """The codes on the plane of their two largest principal components.

    Args:
        z_mean: `(N, latent_dim)`.

    Returns:
        Points `(N, 2)`, and the share of the variance that each of the two explains.
    """
    centred = z_mean - z_mean.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)  # in ascending order
    shares = variances[:-3:-1] / max(variances.sum(), np.finfo("float32").tiny)
    return centred @ directions[:, :-3:-1], shares.clip(0, 1)


def kl_per_dimension(kl, active=None):
    """The KL of each latent dimension, largest first.

    Args:
        kl: nats, of shape `(latent_dim,)`.
        active: which dimensions are; others are drawn grey.
    """
    many, inches = len(kl) > 20, min(14, max(7, 0.2 * len(kl)))
    figure = Figure(figsize=(inches, 3.5), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(-kl)
    active = np.ones(len(kl), bool) if active is None else active
    colors = ["tab:orange" if active[j] else "lightgrey" for j in order]
    axes.bar(range(len(kl)), kl[order], color=colors)
    axes.set(xlabel="latent dimension", ylabel="KL, nats")
    labelled = order if len(kl) <= 70 else []  # more have no room
    names = [z_name(j) for j in labelled]
    axes.set_xticks(range(len(labelled)), names, rotation=90 if many else 0)
    axes.margins(x=0.01)
    grey = "" if active.all() else " (the others are grey)"
    axes.set_title(f"KL per dimension; {int(active.sum())} of {len(kl)} are active{grey}")
    return figure


def aggregate_posterior(z, dimensions):
    """Histograms of draws from q(z), the codes of all images together, against the prior N(0, 1).

    Args:
        z: draws, of shape `(N, latent_dim)`.
        dimensions: which to show.
    """
    columns = min(5, len(dimensions))
    rows = math.ceil(len(dimensions) / columns)
    figure = Figure(figsize=(max(4.5, 2.2 * columns), 1.8 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    low, high = np.quantile(z[:, dimensions], [0.001, 0.999])  # a stray code sets no scale
    low, high = min(1.1 * low, -4.0), max(1.1 * high, 4.0)
    bins = int(np.clip((high - low) / 3 * len(z) ** (1 / 3), 10, 160))  # of width 3 n^(−1/3)
    points = np.linspace(low, high, 400)
    prior = np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    for axes in grid.flat[len(dimensions) :]:
        axes.set_visible(False)
    for axes, j in zip(grid.flat, dimensions, strict=False):
        heights, edges = _densities(z[:, j], np.linspace(low, high, bins + 1))
        axes.stairs(heights, edges, fill=True, color="tab:blue", alpha=0.6)
        axes.plot(points, prior, color="black", lw=1)
        axes.set_title(z_name(j), fontsize=9)
        axes.tick_params(labelbottom=True)  # there may be no panel below
    top = grid[0, 0].get_ylim()[1]
    grid[0, 0].set(xlim=(low, high), ylim=(0, min(top, 2.5 * prior.max())))
    figure.suptitle("Aggregate posterior (blue) and the prior's density (black)", fontsize=10)
    return figure


def _densities(values, edges):
    """A histogram whose area is the share of the values that lie within its edges."""
    counts, _ = np.histogram(values, edges)
    return counts / (len(values) * np.diff(edges)), edges
