"""Figures of numbers against the step, or against the number of samples."""

import numpy as np
from matplotlib.figure import Figure

from vae_tf.engine.callbacks import OF_EPOCHS

NOT_TERMS = ("step", "epoch", "loss", "beta", "gradient_norm", *OF_EPOCHS)
ABOVE = {
    "elbo_loss": ("−ELBO", "tab:purple"),
    "reconstruction_loss": ("reconstruction", "tab:blue"),
}
SPIKE = 0.15  # of the width


def train_process(history, unit="nats"):
    """The loss and each of its terms against the step, on logarithmic steps.

    The loss, −ELBO where that is another, and the reconstruction stand above, every other term
    below, and β, if there, with it. A spike does not set the scale: what goes beyond it is said in
    figures.

    Args:
        history: `runs.load_history(run)` or `StepHistory.columns()`: arrays by column name; terms
            in nats per image, NaN where a row has none.
        unit: of the loss, where it is another.
    """
    names = [name for name in history if name not in NOT_TERMS and not name.startswith("val_")]
    below = [name for name in names if name not in ABOVE]
    count = 2 if below or "beta" in history else 1
    figure = Figure(figsize=(9.5, 3.5 * count), layout="constrained")
    upper, *lower = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    _losses(upper, history, _label_of_loss(names), unit)
    for axes in lower:
        for index, name in enumerate(below):
            axes.plot(history["step"], history[name], label=term_label(name), color=f"C{index + 1}")
        in_bits = below and all(name.startswith("bits_") for name in below)
        axes.set(ylabel="bits" if in_bits else f"{unit} per image")
        _leave_out_spikes(axes)
        _legend(axes, _plot_beta(axes, history) if "beta" in history else None)
    (lower or [upper])[-1].set(xlabel="step")
    return figure


def _label_of_loss(names):
    """What the loss is, by the terms beside it."""
    if "elbo_loss" in names:
        return "loss (−bound)"
    return "total (−ELBO)" if "kl_loss" in names else "loss"


def _losses(axes, history, label, unit):
    steps = history["step"]
    axes.plot(steps, history["loss"], label=label, color="black")
    for name, (words, colour) in ABOVE.items():
        if name in history:
            axes.plot(steps, history[name], label=words, color=colour)
    tested = np.isfinite(history.get("val_loss", np.full(len(steps), np.nan)))
    if tested.any():
        shown = steps[tested], history["val_loss"][tested]
        style = {"ms": 6, "mfc": "white", "mew": 1.5, "color": "tab:red", "zorder": 3}
        axes.plot(*shown, "o", label=f"{label.split()[0]}, held-out images", **style)
    values = np.concatenate([line.get_ydata() for line in axes.get_lines()])
    positive = len(values) > 0 and np.nanmin(values) > 0  # a density's may be negative
    axes.set(xscale="log" if len(steps) else "linear", yscale="log" if positive else "linear")
    axes.set(ylabel=f"{unit} per image", title="Training")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}" if positive else "")
    _leave_out_spikes(axes)
    _legend(axes)


def _plot_beta(axes, history):
    right = axes.twinx()
    right.plot(history["step"], history["beta"], ":", color="tab:grey", label="weight β (right)")
    right.set(ylim=(0, max(1.05, 1.05 * max(history["beta"], default=1))), ylabel="β")
    return right


def _legend(axes, right=None):
    """What the lines are, beside the curves."""
    lines = axes.get_lines() + ([] if right is None else right.get_lines())
    place = 1.02 if right is None else 1.1
    labels = [line.get_label() for line in lines]
    axes.legend(lines, labels, loc="upper left", bbox_to_anchor=(place, 1), frameon=False)


def _leave_out_spikes(axes):
    """End the scale below values that take little of the width and most of the height; say how far they go."""
    lines = [line for line in axes.get_lines() if np.isfinite(line.get_ydata()).any()]
    if not lines:
        return
    scale, back = (np.log, np.exp) if axes.get_yscale() == "log" else (np.asarray, np.asarray)
    low = scale(min(np.nanmin(line.get_ydata()) for line in lines))
    high = scale(max(np.nanmax(line.get_ydata()) for line in lines))
    top = scale(max(map(_usual_top, lines)))
    if high - low <= 2 * (top - low):
        return
    bottom, top = low - 0.05 * (top - low), top + 0.2 * (top - low)
    axes.set_ylim(back(bottom), back(top))
    for line in lines:
        step, highest = line.get_xydata()[np.nanargmax(line.get_ydata())]
        if scale(highest) > top:
            line.set_label(f"{line.get_label()}\n(up to {highest:.4g}, at step {step:.0f})")


def _usual_top(line):
    """The value that a line is above for a share `SPIKE` of its width, on logarithmic steps."""
    x, y = line.get_xydata()[np.isfinite(line.get_ydata())].T
    if len(x) < 3 or line.get_linestyle() == "None":  # each point is to be seen
        return y.max()
    order = np.argsort(-y)
    above = np.cumsum(np.gradient(np.log(x))[order])
    return y[order[np.searchsorted(above, SPIKE * above[-1])]]


def term_label(name):
    """A term's name in words: "KL" for kl_loss, "reconstruction" for reconstruction_loss."""
    words = name.removesuffix("_loss").split("_")
    return " ".join("KL" if word == "kl" else word for word in words)


def likelihood_curve(curve, gaps):
    """The estimate of log p(x) against the number of samples.

    Args:
        curve: `LogLikelihood.curve`, `Estimate`s by K.
        gaps: `LogLikelihood.gaps`. The bars are their errors, which do not hold the images' spread.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    errors = [gaps[k].standard_error if k in gaps else 0 for k in curve]
    axes.errorbar(list(curve), [e.mean for e in curve.values()], errors, marker="o", capsize=4)
    axes.set(xscale="log", xlabel="samples an image, K", ylabel="log p(x), nats per image")
    axes.set_title(
        f"Importance-weighted estimate; bars: error of the difference to K = {max(curve)}"
    )
    axes.grid(alpha=0.3)
    return figure
