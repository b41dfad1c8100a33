"""Figures of numbers against the step, or against the number of samples."""

import numpy as np
from matplotlib.figure import Figure

NOT_TERMS = ("step", "epoch", "loss", "beta", "gradient_norm", "active_units")


def train_process(history):
    """The loss and each of its terms against the step, on logarithmic steps.

    The loss and the reconstruction stand above, every other term below, and β, if there, with it.

    Args:
        history: `runs.load_history(run)` or `StepHistory.columns()`: arrays by column name; terms
            in nats per image, NaN where a row has none.
    """
    names = [name for name in history if name not in NOT_TERMS and not name.startswith("val_")]
    below = [name for name in names if name != "reconstruction_loss"]
    count = 2 if below or "beta" in history else 1
    figure = Figure(figsize=(8, 3.5 * count), layout="constrained")
    upper, *lower = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    _losses(upper, history, "total (−ELBO)" if "kl_loss" in names else "loss")
    for axes in lower:
        for index, name in enumerate(below):
            axes.plot(history["step"], history[name], label=term_label(name), color=f"C{index + 1}")
        _legend_with_beta(axes, history)
        axes.set(ylabel="nats per image")
    (lower or [upper])[-1].set(xlabel="step")
    return figure


def _losses(axes, history, label):
    steps, shown = history["step"], [history["loss"]]
    axes.plot(steps, history["loss"], label=label, color="black")
    if "reconstruction_loss" in history:
        shown.append(history["reconstruction_loss"])
        axes.plot(steps, shown[-1], label=term_label("reconstruction_loss"), color="tab:blue")
    tested = np.isfinite(history.get("val_loss", np.full(len(steps), np.nan)))
    if tested.any():
        shown.append(history["val_loss"][tested])
        name = f"{label.split()[0]}, test set"
        axes.plot(steps[tested], shown[-1], "o", ms=4, mfc="none", color="black", label=name)
    positive = len(steps) > 0 and min(map(np.nanmin, shown)) > 0  # a density's may be negative
    axes.set(xscale="log" if len(steps) else "linear", yscale="log" if positive else "linear")
    axes.set(ylabel="nats per image", title="Training")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}" if positive else "")
    axes.legend()


def _legend_with_beta(axes, history):
    lines = axes.get_lines()
    if "beta" in history:
        beta = axes.twinx()
        beta.plot(history["step"], history["beta"], ":", color="tab:grey", label="weight β of the KL (right)")  # fmt: skip
        beta.set(ylim=(0, max(1.05, 1.05 * max(history["beta"], default=1))), ylabel="β")
        lines, axes = [*lines, *beta.get_lines()], beta
    axes.legend(lines, [line.get_label() for line in lines], framealpha=0.9, loc="center right")


def term_label(name):
    """A term's name in words: "KL" for kl_loss, "reconstruction" for reconstruction_loss."""
    words = name.removesuffix("_loss").split("_")
    return " ".join("KL" if word == "kl" else word for word in words)


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
