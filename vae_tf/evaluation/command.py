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
from vae_tf.training import runs


@dataclasses.dataclass(frozen=True)
class Task:
    """A run and the images to evaluate it on, checked: what `evaluate_run` works on."""

    config: EvaluateConfig
    record: dict
    subject: measures.Subject
    measures: list
    binarize: str
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
    binarize = config.binarize or record["config"].get("binarize", "none")
    images = _images(config, record, binarize)
    if images.image_shape != tuple(model.image_shape):
        expected = f"images of shape {tuple(model.image_shape)}, as the run was trained on"
        raise invalid("data", expected, f"{images.name}, of shape {images.image_shape}")
    default = pathlib.Path(config.run) / "evaluation"
    path = runs.free_path(default) if config.out is None else check_new_path("out", config.out)
    if path.exists():
        raise invalid("out", "a directory that does not exist yet", repr(str(path)))
    subject = measures.Subject(
        model,
        images,
        config.split,
        config.images,
        config.num_samples,
        config.batch_size,
        config.seed,
    )
    chosen = measures.check_measures(subject, config.measures)
    return Task(config, record, subject, chosen, binarize, path)


def _images(config, record, binarize):
    """Other images, or the run's own; binary ones where that is asked for."""
    if config.dataset is not None or config.data is not None:
        images = data.load(config.dataset or "digits", config.data)
    else:
        images = runs.load_images(record)
        if record["config"].get("binarize") == "fixed":  # they are binary already: load grey ones
            images = data.load(record["config"]["dataset"], record["config"]["data"])
    if binarize == "none":
        return images
    return data.binarize(images, config.seed if binarize == "dynamic" else data.FIXED_SEED)


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
    settings = {"command": command} if command else {}
    settings |= _settings(task, time.perf_counter() - start)
    sections = [*found.sections, Section("Settings", list(settings.items()))]
    found = measures.Evaluation({"settings": settings} | found.metrics, sections)
    found.write(task.path, f"Evaluation of {pathlib.Path(task.config.run).resolve().name}")
    return found


def _settings(task, seconds):
    """What made the figures: enough to make them again."""
    config, record = task.config, task.record
    drawn = {
        "none": "no",
        "fixed": "fixed",
        "dynamic": f"dynamic, drawn once by seed {config.seed}",
    }
    return {
        "run": str(config.run),
        "model": _described(task.subject.model),
        "trained steps": record.get("trained_steps", record["steps"]),
        "data": f"{task.images.name}, {config.split}, {len(task.subject.x)} images",
        "binarized": drawn[task.binarize],
        "data SHA-256": runs.fingerprint(task.images)["sha256"],
        "seed": config.seed,
        "date": datetime.date.today().isoformat(),
        "seconds": round(seconds, 1),
        "versions": ", ".join(f"{name} {number}" for name, number in runs.versions().items()),
    }


def _described(model):
    """A model's class, its own arguments, and its likelihood, in a line."""
    config = model.get_config()
    skipped = {"name", "dtype", "trainable", "likelihood"}
    parts = [
        f"{key} {value}"
        for key, value in config.items()
        if key not in skipped and not isinstance(value, dict)
    ]
    return ", ".join([type(model).__name__, *parts, type(model.likelihood).__name__])
