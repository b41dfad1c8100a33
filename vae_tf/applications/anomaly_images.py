"""What `vae-tf anomaly` works on: which images, which of them are anomalies, and the threshold that goes with them."""

import dataclasses
import pathlib

import numpy as np

from vae_tf import data
from vae_tf.applications import thresholds
from vae_tf.data.sizes import check_size
from vae_tf.errors import as_typed, invalid


@dataclasses.dataclass(frozen=True)
class EveryImage(data.Images):
    """Images that are not split, and what each is called."""

    names: tuple = ()


def images(config):
    """Every image of a folder or file of the user's own; None where the command loads them as others do.

    So it is of a data set by name, of the run's own images, and of what comes split.
    """
    if config.data is None or data.comes_split(config.data):
        return None
    x, y, names = _load(config.data, config)
    return EveryImage(pathlib.Path(config.data).resolve().name, x, x, y, y, names=tuple(names))


def _load(path, config):
    """`(x, y, names)` of every image at a path, as the run would have them, and binary as it is wanted."""
    how, binarize, classes = _of_run(config.source)
    x, y, names = data.load_every(path, **how, value_range=data.ANY_VALUE)
    found = data.Images("images", x, x, y, y)
    found = data.numbered(found, classes) if y is not None else found
    binarize = config.binarize or binarize
    if binarize != "none":
        found = data.binarize(found, config.seed if binarize == "dynamic" else data.FIXED_SEED)
    return found.x_test, found.y_test, names


def labelled(config):
    return config.anomalous is not None or config.anomalies is not None


def threshold_of(config):
    """The threshold that flags: of the file or model that was named, or the source's own."""
    if "://" in config.source and config.threshold is None:
        hint = f"Name the SavedModel that is served: {as_typed('threshold', 'SAVED_MODEL')}."
        raise invalid("threshold", "one: a server keeps none", "none", hint)
    return thresholds.load_threshold(config.threshold or config.source)


def used_threshold(config):
    """The threshold of earlier that is used, or None."""
    if config.false_alarms is not None or (labelled(config) and config.threshold is None):
        return None
    return threshold_of(config)


def _of_run(source):
    """How a run's images are made of files: arguments of `load_every`, the binarisation, names of labels."""
    if not (pathlib.Path(source) / "config.json").is_file():
        return {}, "none", None
    from vae_tf.training import runs

    record = runs.load_record(source)
    config, size = record["config"], record["config"].get("resize")
    how = {"size": size and check_size("resize", size), "background": config.get("background")}
    return how, config.get("binarize", "none"), record.get("classes")


def binarize_of(config):
    """How the images are made binary."""
    return config.binarize or _of_run(config.source)[1]


def anomalous_rows(task):
    """Which of the task's images have a label that is anomalous."""
    wanted = task.config.anomalous
    if task.y is None or np.ndim(task.y) != 1:
        hint = f"{as_typed('anomalies', 'PATH')} gives the anomalies by themselves."
        raise invalid("anomalous", "data with a label for each image", "none", hint)
    labels = np.array([str(label) for label in task.y])
    missing = [label for label in wanted if label not in labels]
    if missing:
        there = ", ".join(map(str, np.unique(task.y)[:20]))
        raise invalid("anomalous", f"labels of the images ({there})", ", ".join(missing))
    found = np.isin(labels, wanted)
    if found.all():
        raise invalid("anomalous", "labels that some images have not", ", ".join(wanted))
    return found


def images_of(task):
    """`(x, anomalous, condition)`: what is scored, and which of it are anomalies, None where unknown."""
    config = task.config
    if not labelled(config):
        return task.x, None, task.condition
    found = np.zeros(len(task.x), bool) if config.anomalous is None else anomalous_rows(task)
    if config.anomalies is None:
        return task.x, found, task.condition
    x, y, _ = _load(config.anomalies, config)
    if x.shape[1:] != task.x.shape[1:]:
        raise invalid("anomalies", f"images of shape {task.x.shape[1:]}", f"shape {x.shape[1:]}")
    condition = task.condition
    if condition is not None:
        if y is None:
            raise invalid("anomalies", "images with labels, the model's condition", "no labels")
        condition = np.concatenate([condition, y])
    return _joined(task.x, x), np.append(found, np.ones(len(x), bool)), condition


def _joined(x, others):
    """Images of two sources in one array: bytes where both are, else floats."""
    if x.dtype == others.dtype:
        return np.concatenate([x, others])
    parts = (
        part.astype("float32") / (255 if part.dtype == np.uint8 else 1) for part in (x, others)
    )
    return np.concatenate([*parts])
