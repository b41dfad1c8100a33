"""Every figure, each a function that returns a matplotlib `Figure`; `draw` writes a run's pictures.

Images are arrays `(N, H, W)`, `(N, H, W, 1)` or `(N, H, W, 3)`, uint8 or floats in [0, 1].
"""

import math
import pathlib
from statistics import NormalDist

import matplotlib
import numpy as np
from matplotlib.figure import Figure

GAP = 1  # pixels between the tiles of a grid
COMPONENTS = ("first component", "second component")


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
    return _show(
        image_grid(pairs.reshape(-1, *pairs.shape[2:]), columns),
        f"{len(pairs)} test images: even columns (from 0) reconstructed, odd columns real",
    )


def generated(images, title="Decoded draws from the prior", columns=None):
    """A grid of images, row by row; as square as it gets where `columns` is not given."""
    return _show(image_grid(images, columns), title)


def train_process(history):
    """Reconstruction, KL and their sum against the step, on logarithmic steps.

    Args:
        history: `runs.load_history(run)`: arrays by column name, in nats per image.
    """
    figure = Figure(figsize=(8, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = history["step"]
    upper.plot(steps, history["loss"], label="total (−ELBO)", color="black")
    upper.plot(steps, history["reconstruction_loss"], label="reconstruction", color="tab:blue")
    tested = np.isfinite(history["val_loss"])
    upper.plot(
        steps[tested],
        history["val_loss"][tested],
        "o",
        ms=4,
        mfc="none",
        color="black",
        label="total, test set",
    )
    scale = "log" if len(steps) else "linear"
    upper.set(xscale=scale, yscale=scale, ylabel="nats per image", title="Training")
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_formatter("{x:g}")
    upper.legend()
    lower.plot(steps, history["kl_loss"], label="KL", color="tab:orange")
    lower.set(xscale=scale, xlabel="step", ylabel="nats per image")
    beta = lower.twinx()
    beta.plot(steps, history["beta"], ":", color="tab:grey", label="weight β of the KL (right)")
    beta.set(ylim=(0, 1.05), ylabel="β")
    lines = lower.get_lines() + beta.get_lines()
    beta.legend(lines, [line.get_label() for line in lines], framealpha=0.9, loc="center right")
    return figure


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
    figure = _show(
        image_grid(decode(z), side), "Decoded over the plane, at the prior's quantiles", axis=True
    )
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
            axes.scatter(
                *z_mean[labels == label].T,
                s=size,
                color=color,
                linewidths=0,
                label=str(label),
            )
        axes.legend(
            markerscale=8 / np.sqrt(size), title="label", loc="center left", bbox_to_anchor=(1, 0.5)
        )
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
    figure = _show(image_grid(decode(codes), columns), "One latent dimension a row", axis=True)
    axes = figure.axes[0]
    height, width = axes.images[0].get_array().shape[:2]
    axes.set_yticks(
        (np.arange(len(z)) + 0.5) * height / len(z), [f"$z_{{{i}}}$" for i in range(len(z))]
    )
    picks = np.array([0, columns // 2, columns - 1])
    axes.set_xticks((picks + 0.5) * width / columns, [f"{values[i]:.1f}" for i in picks])
    return figure


def likelihood_curve(curve):
    """The estimate of log p(x) against the number of samples, with its standard error.

    Args:
        curve: `LogLikelihood.curve`, `Estimate`s by K.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    means, errors = zip(*((e.mean, e.standard_error) for e in curve.values()), strict=True)
    axes.errorbar(list(curve), means, errors, marker="o", capsize=4)
    axes.set(xscale="log", xlabel="samples an image, K", ylabel="log p(x), nats per image")
    axes.set_title("Importance-weighted estimate; bars: standard error over images")
    axes.grid(alpha=0.3)
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


def extremes(images, log_probs, count=20):
    """The least likely images above, the most likely below."""
    order = np.argsort(log_probs)
    count = min(count, len(images))
    chosen = np.concatenate([images[order[:count]], images[order[::-1][:count]]])
    return _show(image_grid(chosen, count), "Least likely images above, most likely below")


def draw(path, model, images, history, seed=0):
    """Write the pictures of a run into its directory.

    Args:
        path: the run directory.
        model: its VAE.
        images: its `data.Images`.
        history: its `runs.load_history`.
        seed: picks the test images and the draws from the prior.

    Returns:
        The paths written.
    """
    x, y = images.x_test, images.y_test
    picked = np.sort(np.random.default_rng(seed).choice(len(x), min(100, len(x)), replace=False))
    figures = {
        "reconstruct": reconstruct(x[picked], model.reconstruct(x[picked])),
        "generated": generated(model.generate(100, seed=seed)),
        "train_process": train_process(history),
    }
    z_mean = np.asarray(model.encode(x)[0])
    if model.latent_dim == 2:
        figures["top_infer"] = top_infer(model.decode_images)
        figures["top_label"] = top_label(z_mean, y)
    else:
        figures["traversal"] = traversal(model.decode_images, z_mean[picked[0]])
    if model.latent_dim > 2:
        title = "Encodings of the test set, two principal components"
        figures["encodings"] = top_label(project(z_mean), y, title, COMPONENTS)
    paths = []
    for name, figure in figures.items():
        paths.append(pathlib.Path(path) / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _as_tiles(images):
    """Floats `(N, H, W, 1 or 3)` in [0, 1]."""
    images = np.asarray(images)
    images = images / 255 if images.dtype == np.uint8 else images.astype("float64")
    if images.ndim == 2:
        images = images[:, None, :]
    if images.ndim == 3:
        images = images[..., None]
    return images[..., :3] if images.shape[-1] >= 3 else images[..., :1]


def _show(grid, title, axis=False):
    """One image, without axes, at a size that keeps its proportions."""
    height, width = grid.shape[:2]
    scale = 8 / max(height, width)
    figure = Figure(figsize=(max(3, width * scale), height * scale + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    if not axis:
        axes.set_axis_off()
    return figure
