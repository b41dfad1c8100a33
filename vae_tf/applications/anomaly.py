"""`vae-tf anomaly`: scores of images, how well they tell anomalies, a threshold, and what it flags.

Three ways of use: anomalies are known (`anomalous`, `anomalies`), and the scores are judged; the images
are normal, and a threshold is chosen on them (`false_alarms`), which goes with either; or images are new,
and those above the model's threshold are flagged.
"""

import dataclasses
import pathlib

import numpy as np

from vae_tf.applications import scores, thresholds
from vae_tf.applications.anomaly_images import (
    anomalous_rows,
    binarize_of,
    images,  # noqa: F401  the command asks for it
    images_of,
    used_threshold,
)
from vae_tf.applications.command import Result
from vae_tf.applications.detection import (
    auroc,
    average_precision,
    check_enough,
    choose_threshold,
    share,
)
from vae_tf.applications.thresholds import Threshold
from vae_tf.errors import as_typed, invalid
from vae_tf.evaluation.report import Section
from vae_tf.plots import detection as figures
from vae_tf.plots.marked import most_anomalous

TOLD = 20  # flagged images that the command names


@dataclasses.dataclass(frozen=True)
class Judged:
    """Images with their scores, and what is known of them.

    anomalous: booleans, or None where it is not known. scores: by name, `(N,)`.
    """

    x: np.ndarray
    scores: dict
    anomalous: np.ndarray | None


def flag(source, x, threshold, condition=None, progress=None):
    """Which images a threshold flags: `(flags, scores)`, booleans and floats `(N,)`.

    Args:
        source: what `source_of` takes.
        x: images.
        threshold: a `Threshold`, as `load_threshold` gives it.
        condition, progress: as for `anomaly_scores`.

    Example:
        >>> flags, values = flag("saved_models/mnist", x, load_threshold("saved_models/mnist"))
    """
    found = scores.anomaly_scores(
        source, x, threshold.score, threshold.num_samples, threshold.seed, condition, progress
    )[threshold.score]
    return found > threshold.value, found


# The command.


def check(task):
    """Raise what can be known before a score is computed."""
    config = task.config
    if config.false_alarms is not None and config.threshold is not None:
        raise invalid("threshold", "none with --false-alarms, which chooses one", config.threshold)
    normal = len(task.x) if config.anomalous is None else (~anomalous_rows(task)).sum()
    if config.false_alarms is not None:
        check_enough(normal - normal // 2, config.false_alarms)
        if pathlib.Path(config.source).exists():
            thresholds.check_writable(config.source)
    for name in _names(task):
        scores.check_score(task.source, name, task.x)
    if used_threshold(config) is None:
        return
    kept = used_threshold(config).binarize
    if kept != binarize_of(config):
        hint = f"{as_typed('binarize', kept)} has them so."
        received = f"{binarize_of(config)!r}, where the threshold was chosen on {kept!r}"
        raise invalid("binarize", "images as those of the threshold", received, hint)


def run(task, progress):
    """Score the images; judge the scores, choose a threshold or use one; a `Result`."""
    config, used = task.config, used_threshold(task.config)
    names = _names(task)
    x, anomalous, condition = images_of(task)
    draws, seed = (used.num_samples, used.seed) if used else (config.num_samples, config.seed)
    found = scores.anomaly_scores(task.source, x, names, draws, seed, condition, progress)
    judged = Judged(x, found, anomalous)
    metrics, sections = {"images": len(x)}, []
    if anomalous is not None:
        entry, section = _detection(task, judged)
        metrics, sections = metrics | entry, [section]
    if config.false_alarms is not None:
        used, rows = _chosen(task, judged)
        sections.append(Section("Threshold", rows))
        metrics["threshold"] = dataclasses.asdict(used)
    elif used is not None:
        entry, section = _flagged(task, judged, used)
        metrics, sections = metrics | entry, [*sections, section]
    return Result(
        metrics, [*sections, Section("Pictures", figures=_pictures(judged, used, config))]
    )


def _names(task):
    """The scores that are computed: those asked for, that of the threshold, or all that there are."""
    used = used_threshold(task.config)
    if used is None:
        task.source.needs("reconstruct", "anomaly")  # the least that a score takes
        return task.config.scores or scores.available(task.source, task.x)
    if task.config.scores not in (None, (used.score,)):
        received = ",".join(task.config.scores)
        raise invalid("scores", f"{used.score}, which the threshold is of", received)
    return scores.check_names("threshold", used.score)


def _detection(task, judged):
    """The figures of each score, for `metrics.json` and the report."""
    anomalous, metrics, rows = judged.anomalous, {}, []
    rows.append(("normal, anomalous images", f"{(~anomalous).sum()}, {anomalous.sum()}"))
    for name, values in judged.scores.items():
        area = auroc(anomalous, values)
        precision = average_precision(anomalous, values)
        metrics[name] = {"auroc": dataclasses.asdict(area)}
        metrics[name]["average_precision"] = dataclasses.asdict(precision)
        rows.append((f"{figures.words(name)}: AUROC", area))
        rows.append((f"{figures.words(name)}: average precision", precision))
    for name in scores.BY_NAME if task.config.scores is None and not task.config.threshold else ():
        if name not in judged.scores:
            needed = scores.BY_NAME[name].needed
            rows.append((figures.words(name), f"not computed: it needs {needed}"))
    return {"scores": metrics}, Section("Detection", rows, caveats=_caveats(task))


def _caveats(task):
    found, config = [], task.config
    own = config.dataset is None and config.data is None
    seen = task.images.y_train
    if own and config.anomalous and seen is not None:
        trained = sorted(set(config.anomalous) & {str(label) for label in np.unique(seen)})
        if trained:
            found.append(
                f"The model was trained on images of {', '.join(trained)} too, so that these are not new to it. "
                "vae-tf held-out trains without them."
            )
    if task.source.condition is not None:
        found.append("The model is told each image's label: the scores are of p(x|label).")
    return found


def _chosen(task, judged):
    """The threshold of the first score, and the rows that say of it what there is to say."""
    config, name = task.config, next(iter(judged.scores))
    anomalous = judged.anomalous
    normal = np.flatnonzero(np.ones(len(judged.x), bool) if anomalous is None else ~anomalous)
    normal = np.random.default_rng(config.seed).permutation(normal)
    chosen_on, others = np.array_split(normal, 2)
    value = choose_threshold(judged.scores[name][chosen_on], config.false_alarms)
    rate = share(judged.scores[name][others] > value)
    draws = scores.BY_NAME[name].num_samples and (
        config.num_samples or scores.BY_NAME[name].num_samples
    )
    found = Threshold(
        name, value, config.false_alarms, len(chosen_on), [rate.value, rate.low, rate.high], len(others),
        draws, config.seed, binarize_of(config), f"{task.images.name}, {config.split}",
    )  # fmt: skip
    rows = _rows_of(found, judged)
    if pathlib.Path(config.source).exists():
        rows.append(("kept in", thresholds.save_threshold(config.source, found)))
    else:
        rows.append(("kept", "no: a server has no place for it; metrics.json has all of it"))
    return found, rows


def _rows_of(threshold, judged):
    """What a report says of a threshold that was just chosen."""
    rows = [
        ("score", figures.words(threshold.score)),
        ("threshold", f"{threshold.value:.6g}: an image above it is flagged"),
        ("rate of false alarms asked for", f"{threshold.false_alarms:g}"),
        ("chosen on", f"{threshold.normal_images} normal images"),
        (
            "achieved on others",
            "{:.4f} ({:.4f} – {:.4f})".format(*threshold.achieved)
            + f", {threshold.judged} normal images",
        ),
    ]
    if judged.anomalous is not None:
        flags = judged.scores[threshold.score][judged.anomalous] > threshold.value
        rows.append(("anomalous images flagged", f"{share(flags)}"))
    return rows


def _flagged(task, judged, used):
    """Which images an earlier threshold flags."""
    values = judged.scores[used.score]
    flags = values > used.value
    order = np.argsort(-values, kind="stable")
    order = order[flags[order]]
    names = getattr(task.images, "names", ()) or [f"number {i}" for i in range(len(judged.x))]
    names = [*names[: len(task.x)], *(f"anomaly {i}" for i in range(len(judged.x) - len(task.x)))]
    entries = [{"image": names[i], "score": float(values[i])} for i in order]
    rows = [
        ("score", figures.words(used.score)),
        (
            "threshold",
            f"{used.value:.6g}, for a rate of {used.false_alarms:g} on {used.data or 'normal images'}",
        ),
        ("flagged", f"{flags.sum()} of {len(flags)} images"),
    ]
    if judged.anomalous is not None:
        rows.append(("of the normal images", share(flags[~judged.anomalous])))
        rows.append(("of the anomalous images", share(flags[judged.anomalous])))
    rows += [(entry["image"], f"{entry['score']:.6g}") for entry in entries[:TOLD]]
    if len(entries) > TOLD:
        rows.append(("...", f"{len(entries) - TOLD} more are in metrics.json"))
    metrics = {"flagged": entries, "threshold": dataclasses.asdict(used)}
    return metrics, Section("Flagged", rows, caveats=_caveats(task))


def _pictures(judged, used, config):
    """Histograms, the ROC curves where anomalies are known, and the highest scores."""
    name = next(iter(judged.scores))
    values, level = judged.scores[name], None if used is None else used.value
    title, label = "Scores of the images", scores.BY_NAME[name].title
    found = {"scores": figures.score_histograms(values, judged.anomalous, level, title, label)}
    if judged.anomalous is not None:
        point = None
        if used is not None:
            flagged = values > level
            rate = flagged[~judged.anomalous].mean()
            if config.false_alarms is not None:  # chosen on half of them: that of the others
                rate = used.achieved[0]
            point = rate, flagged[judged.anomalous].mean()
        found["roc"] = figures.roc_curves(judged.anomalous, judged.scores, point)
    flags = None if used is None else values > level
    return found | {"most_anomalous": most_anomalous(judged.x, values, flags, judged.anomalous)}
