"""How well scores tell anomalous images from normal ones, and a threshold for a rate of false alarms.

Scores are arrays `(N,)`, the higher the more anomalous.
"""

import dataclasses
import math
from statistics import NormalDist

import numpy as np

from vae_tf.errors import invalid

LEVEL = 0.95  # of every interval


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.4f} ({self.low:.4f} – {self.high:.4f})"


def auroc(anomalous, scores):
    """The area under the ROC curve: P(s⁺ > s⁻) + ½ P(s⁺ = s⁻), s⁺ an anomalous image's score, s⁻ a normal one's.

    The interval is by the variance of DeLong et al. (1988), on the scale of log(A/(1 − A)), which keeps it
    between 0 and 1. It has no width where the scores separate the two without an error; where there is one
    image of a kind it is not known (NaN).

    Args:
        anomalous: booleans `(N,)`: which images are anomalous.
        scores: `(N,)`.

    Returns:
        An `Interval`.

    Raises:
        ValueError: all images are of one kind, or a score is not finite.

    Example:
        >>> auroc([False, False, True, True], [0.1, 0.4, 0.35, 0.8]).value
        0.75

    Source: DeLong, DeLong & Clarke-Pearson (1988); by ranks, Sun & Xu (2014).
    """
    from sklearn.metrics import roc_auc_score

    anomalous, scores = _checked(anomalous, scores)
    area, ranks = float(roc_auc_score(anomalous, scores)), _ranks(scores)
    variance = 0.0
    for rows in (anomalous, ~anomalous):  # each image's share of images of the other kind below it
        below = (ranks[rows] - _ranks(scores[rows])) / (~rows).sum()
        variance += below.var(ddof=1) / len(below) if len(below) > 1 else math.nan
    return _on_logits(area, math.sqrt(variance))


def average_precision(anomalous, scores):
    """Average precision, Σ_n (R_n − R_{n−1}) P_n over all thresholds, with recall R and precision P.

    A score that knows nothing has the share of anomalous images: compare figures of one share alone. The
    interval is the logit interval of Boyd et al. (2013), of standard error √(A(1 − A)/n⁺) for n⁺ anomalous
    images. (A bootstrap draws an anomaly several times, and so finds precisions that are too high.)

    Args, returns, raises: as for `auroc`.

    Source: Boyd, Eng & Page (2013), "Area under the precision-recall curve: point estimates and confidence
    intervals".
    """
    from sklearn.metrics import average_precision_score

    anomalous, scores = _checked(anomalous, scores)
    area = float(average_precision_score(anomalous, scores))
    return _on_logits(area, math.sqrt(max(0.0, area * (1 - area)) / anomalous.sum()))


def _on_logits(value, error):
    """The interval of a figure in (0, 1) by its standard error, on the scale of log(v/(1 − v))."""
    if error == 0:
        return Interval(value, value, value)
    z, place = NormalDist().inv_cdf((1 + LEVEL) / 2), math.log(value / (1 - value))
    half = z * error / (value * (1 - value))
    return Interval(
        value, *(float(0.5 + 0.5 * math.tanh((place + side * half) / 2)) for side in (-1, 1))
    )


def _ranks(scores):
    """The place of each score in ascending order, from 1; equal scores share the middle of theirs."""
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def _checked(anomalous, scores):
    """Both as arrays; or what is wrong with them."""
    anomalous, scores = np.asarray(anomalous), np.asarray(scores, np.float64)
    if anomalous.dtype != bool or anomalous.ndim != 1:
        received = f"{anomalous.dtype} of shape {anomalous.shape}"
        raise invalid("anomalous", "booleans of shape (N,)", received)
    if scores.shape != anomalous.shape:
        raise invalid("scores", f"one for each of {len(anomalous)} images", f"shape {scores.shape}")
    check_finite("scores", scores)
    if anomalous.all() or not anomalous.any():
        kind = "anomalous" if anomalous.any() else "normal"
        expected = "normal and anomalous images, without which neither figure is defined"
        raise invalid("anomalous", expected, f"{len(anomalous)} images, all of them {kind}")
    return anomalous, scores


def check_finite(argument, scores):
    """Return scores, or raise where some are NaN or infinite, which have no place in an order."""
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        found = (
            f"NaN or infinity for {len(wrong)} of {len(scores)} images, first for number {wrong[0]}"
        )
        raise invalid(argument, "finite numbers", found)
    return scores


def share(flags):
    """The share of True among booleans, an `Interval` (Wilson 1927)."""
    count, found = len(flags), int(np.sum(flags))
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = (found + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(found * (count - found) / count + z * z / 4)
    return Interval(found / count, max(0.0, centre - half), min(1.0, centre + half))


def choose_threshold(scores, false_alarms):
    """The lowest score t such that of new normal images at most a share `false_alarms` is expected above it.

    It is the ⌈(n + 1)(1 − α)⌉-th of n scores in ascending order. A further normal image is as likely
    at each place among them, so P(s > t) ≤ α, whatever the scores' distribution. (The rate on other
    images varies around α: `share` has its interval.)

    Args:
        scores: of normal images that the model was not trained on, `(n,)`.
        false_alarms: α, above 0 and below 1.

    Raises:
        ValueError: there are fewer than 1/α − 1 images, or a score is not finite.

    Example:
        >>> choose_threshold(range(1, 100), 0.05)
        95.0

    Source: Vovk, Gammerman & Shafer (2005), "Algorithmic Learning in a Random World"; known as split
    conformal prediction.
    """
    scores = np.sort(check_finite("scores", np.asarray(scores, np.float64)))
    above = check_enough(len(scores), false_alarms)
    return float(scores[len(scores) - above])


def check_enough(count, false_alarms):
    """How many of so many scores may be above the threshold; or raise where that is none."""
    check_rate("false_alarms", false_alarms)
    above = math.floor(false_alarms * (count + 1) + 1e-9)
    if above < 1:
        least = math.ceil(1 / false_alarms - 1e-9) - 1
        expected = (
            f"at least {least} normal images to choose the threshold on, for {false_alarms:g}"
        )
        raise invalid("false_alarms", expected, f"{count}")
    return above


def check_rate(argument, value):
    """Return a rate above 0 and below 1, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise invalid(argument, "a number above 0 and below 1", f"{argument}={value!r}")
    return float(value)
