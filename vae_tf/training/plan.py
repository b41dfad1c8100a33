"""A configuration with its data, and every number that follows from the two."""

import dataclasses
import importlib.util
import pathlib
import re

from vae_tf import data, files
from vae_tf.errors import check_new_path, invalid
from vae_tf.training.config import RECIPES, TrainConfig
from vae_tf.training.record import config_of

DEFAULT_STEPS, MOST_EPOCHS = 10_000, 200  # where neither steps nor epochs are given


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration with its data, checked: what `train` works on.

    `watched.x_train` is trained on and `watched.x_test` validated on; `images.x_test` is for the end.
    """

    config: TrainConfig
    images: data.Images
    watched: data.Images
    path: pathlib.Path
    batch_size: int
    steps: int
    learning_rate: float
    resume: bool = False
    classes: list | None = None  # names of labels, of a conditional model whose data have such

    @property
    def recipe(self):
        return RECIPES[self.config.recipe]

    @property
    def steps_per_epoch(self):
        return -(-len(self.watched.x_train) // self.batch_size)

    @property
    def epochs(self):
        return -(-self.steps // self.steps_per_epoch)

    @property
    def warmup_steps(self):
        if self.config.kl_warmup is not None:
            return self.config.kl_warmup
        constant = self.config.model == "betavae"  # Higgins et al. hold β
        return 0 if constant else round(self.recipe.warmup * self.steps)

    @property
    def of_prior(self):
        """The plan of the second phase, of a model that has one: the same for other steps, in `prior/`."""
        steps = self.config.prior_steps or self.steps
        return dataclasses.replace(self, path=self.path / "prior", steps=steps, resume=True)

    def optimizer(self):
        """The recipe's optimizer, for this many steps at this rate."""
        return self.recipe.optimizer(self.learning_rate, self.steps, self.config.clip_norm)


def prepare(config, value_range=None):
    """Load the data and settle every number, before anything is trained or written.

    TensorFlow is not imported, unless the data are of tensorflow-datasets: mistakes are told at once.

    Args:
        config: a `TrainConfig`.
        value_range: the least and the largest value of a pixel; by default the likelihood's.

    Raises:
        ValueError: the data cannot be used, or the run directory exists.
    """
    path = check_new_run(config)
    value_range = value_range or config.value_range
    images = data.load(config.dataset, config.data, config.resize, config.background, value_range)
    if config.binarize == "fixed":
        images = data.binarize(images)
    labelled = config.model == "conditionalvae" and config.quadrants is None
    classes = data.class_names(images) if labelled else None
    images = data.numbered(images, classes)
    if config.quadrants is not None:
        images = data.with_quadrants(images, config.quadrants)
    path = path or check_new_path("run", _free_path(images.name, config))
    return settle(config, images, path, classes=classes)


def check_new_run(config):
    """The path of a run, None where it is to be chosen.

    Raises:
        ValueError: it exists.
    """
    path = None if config.run is None else check_new_path("run", config.run)
    if path is not None and path.exists():
        raise invalid(
            "run",
            "a directory that does not exist yet",
            f"{str(path)!r}",
            "Give another name, or move it away; to go on with it, vae-tf train --resume RUN.",
        )
    return path


def prepare_resume(path):
    """The plan of a run that was interrupted, to go on from its last checkpoint.

    Args:
        path: the run directory.

    Raises:
        ValueError: it is no run, it is completed, or its data are not what they were.
    """
    from vae_tf.training import runs  # which imports TensorFlow

    path, record = pathlib.Path(path), runs.load_record(path)
    if record.get("status") == "completed" and (path / "model.keras").is_file():
        hint = "Nothing is left of it to train: vae-tf evaluate RUN, or a new run with more steps."
        raise invalid("resume", "a run that was interrupted", f"{str(path)!r}, completed", hint)
    config = config_of(path / "config.json", record)
    images, classes = runs.load_images(record), record.get("classes")
    return settle(config, images, path, resume=True, classes=classes)


def settle(config, images, path, **others):
    """The numbers that follow from a configuration and its data."""
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        hint = 'pip install "vae_tf[tensorboard]"'
        raise invalid("tensorboard", "an installed tensorboard", "none", hint)
    watched = _watched(config, images)
    count = len(watched.x_train)
    batch_size = min(100, count) if config.batch_size is None else config.batch_size
    if batch_size > count:
        expected = f"at most the {count} training images"
        raise invalid("batch_size", expected, f"batch_size={batch_size}")
    per_epoch = -(-count // batch_size)
    if config.epochs is not None:
        steps = config.epochs * per_epoch
    else:
        steps = config.steps or min(DEFAULT_STEPS, MOST_EPOCHS * per_epoch)
    rate = config.learning_rate or RECIPES[config.recipe].learning_rate
    return Plan(config, images, watched, path, batch_size, steps, rate, **others)


def _watched(config, images):
    """The images to train on and to validate on; the test images where there are no others."""
    if images.x_val is not None:
        if config.validation is not None:
            expected = f"none: {images.name} comes with images to validate on"
            raise invalid("validation", expected, f"validation={config.validation}")
        parts = images.x_train, images.x_val, images.y_train, images.y_val
        return data.Images(images.name, *parts)
    if config.held_out is None:
        return images
    return data.hold_out(images, config.held_out)


def _free_path(name, config):
    """`runs/<data>_<model>_<recipe>_z<latent_dim>`, with a number behind it where that exists."""
    name = re.sub(r"[/\\:]", "_", name)
    model = "" if config.model == "vae" else f"_{config.model}"
    given = "" if config.quadrants is None else f"_q{config.quadrants}"
    stem = f"{name}{model}{given}_{config.recipe}_{config.code_name}"
    return files.free_path(pathlib.Path("runs") / stem)
