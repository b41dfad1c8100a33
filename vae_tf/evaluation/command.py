"""`vae-tf evaluate`: a run, its data, the measures that apply to them, and the report."""

import dataclasses
import datetime
import pathlib
import time

from vae_tf import data
from vae_tf.errors import check_new_path, invalid
from vae_tf.evaluation import measures
from vae_tf.evaluation.config import EvaluateConfig
from vae_tf.evaluation.report import Section
from vae_tf.evaluation.subject import BINARY, GREY, Subject
from vae_tf.training import runs


@dataclasses.dataclass(frozen=True)
class Task:
    """A run and the images to evaluate it on, checked: what `evaluate_run` works on."""

    config: EvaluateConfig
    record: dict
    subject: Subject
    measures: list
    path: pathlib.Path

    @property
    def images(self):
        return self.subject.images


def prepare(config):
    """Load the run and the images, and check all that can be wrong, before anything is computed.

    Raises:
        ValueError: the run has no finished model, or the images or measures do not fit it.
    """
    record, model = runs.load_run(config.run)
    own = config.dataset is None and config.data is None
    images, given, binarize = images_for(record, config)
    if images.image_shape != tuple(model.image_shape):
        expected = f"images of shape {tuple(model.image_shape)}, as the run was trained on"
        raise invalid("data", expected, f"{images.name}, of shape {images.image_shape}")
    default = pathlib.Path(config.run) / "evaluation"
    path = check_new_path("out", config.out or runs.free_path(default))
    if path.exists():
        raise invalid("out", "a directory that does not exist yet", repr(str(path)))
    subject = Subject(
        model, images, config.split, config.images, config.num_samples, config.batch_size, config.seed,
        _trained_on(record, model, given if own else None), own, _facts(config, record, binarize),
    )  # fmt: skip
    chosen = measures.check_measures(subject, config.measures)
    return Task(config, record, subject, chosen, path)


def images_for(record, config):
    """The images that a command works on: a run's own or others, as the run would have them.

    Args:
        record: of the run.
        config: has `dataset`, `data`, `binarize` and `seed`.

    Returns:
        `(images, those before they were binarised, how they were)`.
    """
    own = config.dataset is None and config.data is None
    dataset = config.dataset or "digits"
    given = _run_images(record) if own else runs.load_like(record, dataset, config.data)
    binarize = config.binarize or record["config"].get("binarize", "none")
    images = given if binarize == "none" else _drawn(given, binarize, config.seed)
    if record["config"].get("binarize") == "fixed":
        images = runs.in_parts(record, images)
    return images, given, binarize


def _run_images(record):
    """The run's own images, grey ones where it drew binary ones of them."""
    images = runs.load_images(record)
    if record["config"].get("binarize") == "fixed":  # they are binary already
        images = runs.load_like(record, record["config"]["dataset"], record["config"]["data"])
    return images


def _drawn(images, binarize, seed):
    return data.binarize(images, seed if binarize == "dynamic" else data.FIXED_SEED)


def _trained_on(record, model, images):
    """What a Bernoulli was trained on; None of another likelihood, or where it cannot be seen any more.

    Args:
        images: the run's own, or None where others are evaluated.
    """
    support = model.likelihood.support
    if support.kind != "binary":
        return None
    if record["config"].get("binarize", "none") != "none":
        return BINARY
    try:
        images = _run_images(record) if images is None else images
    except (ValueError, OSError):  # the report is of others, for which these are not needed
        return None
    return BINARY if support.contains(images.x_train) else GREY


def _facts(config, record, binarize):
    """What is known of a run and its images beside the model."""
    drawn = {
        "none": "no",
        "fixed": "fixed",
        "dynamic": f"dynamic, drawn once by seed {config.seed}",
    }
    return {
        "run": str(config.run),
        "trained steps": record.get("trained_steps", record["steps"]),
        "binarized": drawn[binarize],
    }


def evaluate_run(task, progress=None, command=None):
    """Compute every measure that is wanted, and write the report.

    Args:
        task: from `prepare`.
        progress: called with a measure's name, what is done and of how much.
        command: the command line, for the report.

    Returns:
        A `measures.Evaluation`: what `metrics.json` holds, and the sections of the report.
    """
    start = time.perf_counter()
    found = measures.run(task.subject, task.measures, progress)
    settings = ({"command": command} if command else {}) | _settings(task)
    settings["seconds"] = round(time.perf_counter() - start, 1)
    sections = [*found.sections, Section("To do it again", list(settings.items()))]
    found.metrics["settings"] |= settings
    found = measures.Evaluation(found.metrics, sections)
    found.write(task.path, f"Evaluation of {pathlib.Path(task.config.run).resolve().name}")
    return found


def _settings(task):
    """What made the figures, beside what is at the head of the report: enough to make them again."""
    return {
        "data SHA-256": runs.fingerprint(task.images)["sha256"],
        "seed": task.config.seed,
        "date": datetime.date.today().isoformat(),
        "versions": ", ".join(f"{name} {number}" for name, number in runs.versions().items()),
    }
