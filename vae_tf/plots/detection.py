"""Figures of scores that tell anomalous images from normal ones."""

import numpy as np
from matplotlib.figure import Figure

NORMAL, ANOMALOUS = "tab:blue", "tab:red"
BINS = 60
_MOST = 99.5  # the percentile at which a histogram ends; what is above is in its last bin


def score_histograms(scores, anomalous=None, threshold=None, title="Scores", label="score"):
    """Histograms of normal and of anomalous images' scores, as shares of each kind.

    Args:
        scores: `(N,)`.
        anomalous: booleans `(N,)`, or None where it is not known.
        threshold: a line there.
        title, label: what it says, and the score's name and unit.
    """
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    scores, high = np.asarray(scores), np.percentile(scores, _MOST)
    if threshold is not None:
        high = max(high, threshold * 1.02 if threshold > 0 else threshold)
    low = scores.min()
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    kinds = {"images": (np.ones(len(scores), bool), NORMAL)}
    if anomalous is not None:
        kinds = {"normal": (~anomalous, NORMAL), "anomalous": (anomalous, ANOMALOUS)}
    for name, (rows, colour) in kinds.items():
        part = np.minimum(scores[rows], edges[-1])
        weights = np.full(len(part), 1 / max(1, len(part)))
        words = f"{len(part)} {name}"
        axes.hist(part, edges, weights=weights, color=colour, alpha=0.55, label=words)
    if threshold is not None:
        axes.axvline(threshold, color="black", ls="--", label=f"threshold {threshold:.4g}")
    above = "" if scores.max() <= edges[-1] else "; the last bin has all that is above"
    axes.set(xlabel=label, ylabel="share of the images", title=f"{title}{above}")
    axes.legend(frameon=False)
    return figure


def roc_curves(anomalous, scores, point=None):
    """The share of anomalies found against the rate of false alarms, a line for each score.

    Args:
        anomalous: booleans `(N,)`.
        scores: by name arrays `(N,)`.
        point: a threshold's `(rate of false alarms, share found)`, or None.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for name, values in scores.items():
        false_alarms, found, _ = roc_curve(anomalous, values)
        area = roc_auc_score(anomalous, values)
        axes.plot(false_alarms, found, label=f"{words(name)}: {area:.3f}")
    if point is not None:
        axes.plot(*point, "o", color="black", ms=7, label="the threshold")
    axes.plot([0, 1], [0, 1], ":", color="tab:grey")
    axes.set(
        xlabel="false alarms, share of normal images", ylabel="found, share of anomalous images"
    )
    axes.set(title="ROC, with the area under each curve", aspect="equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return figure


def held_out_areas(results):
    """The AUROC of each held-out label by each score, with its interval.

    Args:
        results: by label dictionaries from a score's name to `(value, low, high)`.
    """
    labels = list(results)
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    figure = Figure(figsize=(max(6.5, 0.9 * len(labels) + 2), 4.2), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(names):
        there = [label for label in labels if name in results[label]]
        value, low, high = np.array([results[label][name] for label in there]).T
        place = np.array([labels.index(label) for label in there])
        place = place + 0.12 * (number - (len(names) - 1) / 2)
        colour = "black" if name == "pca" else f"C{number}"
        told = {"fmt": "s" if name == "pca" else "o", "color": colour, "ms": 5, "capsize": 2}
        axes.errorbar(
            place,
            value,
            [value - low, high - value],
            label=f"{words(name)}: mean {value.mean():.3f}",
            **told,
        )
    axes.axhline(0.5, ls=":", color="tab:grey")
    axes.set_xticks(range(len(labels)), [str(label) for label in labels])
    axes.set(xlabel="label that the model has not seen", ylabel="AUROC", title="Held-out labels")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def words(name):
    """A score's name in words: "negative ELBO" for negative_elbo."""
    whole = {"pca": "PCA", "nll": "−log p(x)", "negative_elbo": "negative ELBO"}
    return whole.get(name, name.replace("_", " "))
