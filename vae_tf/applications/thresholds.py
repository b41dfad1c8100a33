"""A threshold of an anomaly score, and the file that keeps it with the model that gives the score."""

import dataclasses
import json
import math
import os
import pathlib

from vae_tf import files
from vae_tf.data import BINARIZE
from vae_tf.errors import as_typed, check_positive_int, invalid

FILE = "anomaly.json"
IN_EXPORT = f"assets.extra/{FILE}"  # of a version: servers leave this folder alone


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Above which score an image is flagged, and how that was chosen.

    score, num_samples, seed: what the scores were made with; new images need the same.
    value: the threshold; an image is flagged where its score is higher.
    false_alarms: the rate that was asked for; normal_images: how many it was chosen on.
    achieved: `[rate, low, high]` on `judged` other normal images.
    binarize, data: how the images were made binary, and what they were.
    """

    score: str
    value: float
    false_alarms: float
    normal_images: int
    achieved: list
    judged: int
    num_samples: int | None = None
    seed: int = 0
    binarize: str = "none"
    data: str = ""


def save_threshold(path, threshold):
    """Write a threshold into a SavedModel or a run, aside and then renamed; an earlier one is replaced.

    Args:
        path: a SavedModel, a directory of versions, whose newest is taken, or a run directory.

    Returns:
        The file's path: `assets.extra/anomaly.json` of the version, or `anomaly.json` of the run.

    Raises:
        ValueError: it is neither.
    """
    file = threshold_file(path)
    file.parent.mkdir(exist_ok=True)
    content = json.dumps(dataclasses.asdict(threshold), indent=2, allow_nan=False) + "\n"
    files.write_atomically(file, content.encode())
    return file


def load_threshold(path):
    """The `Threshold` that is kept with a SavedModel or a run.

    Args:
        path: as for `save_threshold`, or the file itself.

    Raises:
        ValueError: there is none, or the file is damaged.

    Example:
        >>> load_threshold("saved_models/mnist").value  # doctest: +SKIP
        0.0213
    """
    path = pathlib.Path(path)
    file = path if path.suffix == ".json" else threshold_file(path)
    if not file.is_file():
        hint = (
            f"Choose one on normal images: {as_typed('false_alarms', 0.01)}; or say which images are "
            f"anomalies: {as_typed('anomalous', 'LABEL')} or {as_typed('anomalies', 'PATH')}."
        )
        expected = "a model with a threshold for anomalies"
        raise invalid("threshold", expected, f"{str(path)!r}, which has no {FILE}", hint)
    try:
        return _checked(json.loads(file.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        expected = f"an {FILE} as vae-tf anomaly writes it"
        received = f"{str(file)!r} ({error})"
        raise invalid("threshold", expected, received, "Choose it anew.") from error


def threshold_file(path):
    """Where the threshold of a SavedModel or a run is kept, whether it is there or not."""
    from vae_tf.export.versions import find_saved_model

    path = pathlib.Path(path)
    if (path / "config.json").is_file():
        return path / FILE
    saved_model = find_saved_model(path)
    if saved_model is None:
        expected = f"a SavedModel, a directory of its versions, a run directory, or an {FILE}"
        raise invalid("threshold", expected, repr(str(path)))
    return saved_model / IN_EXPORT


def check_writable(path):
    """Raise unless a threshold can be kept there: before hours of work, and not after."""
    file = threshold_file(path)
    nearest = file.parent if file.parent.exists() else file.parent.parent
    if not os.access(nearest, os.W_OK):
        received = f"{str(nearest)!r}, which cannot be written to"
        raise invalid("false_alarms", "a model beside which the threshold can be kept", received)


def _checked(content):
    """The `Threshold` of a file's content; what is wrong with it is a TypeError or a ValueError."""
    from vae_tf.applications.detection import check_rate

    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}")
    found = Threshold(**content)
    number = isinstance(found.value, (int, float)) and not isinstance(found.value, bool)
    if not number or not math.isfinite(found.value):
        raise ValueError(f"its value is {found.value!r}")
    if not isinstance(found.score, str) or found.binarize not in BINARIZE:
        raise ValueError(f"its score is {found.score!r}, its binarize {found.binarize!r}")
    check_rate("false_alarms", found.false_alarms)
    check_positive_int("seed", found.seed, minimum=0)
    if found.num_samples is not None:
        check_positive_int("num_samples", found.num_samples)
    return found
