"""A configuration with its data, and every number that follows from the two."""

import dataclasses
import importlib.util
import pathlib

from vae_tf import data
from vae_tf.errors import check_new_path, invalid
from vae_tf.training import runs
from vae_tf.training.config import RECIPES, TrainConfig

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
        given = self.config.kl_warmup
        return round(self.recipe.warmup * self.steps) if given is None else given

    def optimizer(self):
        """The recipe's optimizer, for this many steps at this rate."""
        return self.recipe.optimizer(self.learning_rate, self.steps, self.config.clip_norm)


def prepare(config):
    """Load the data and settle every number, before anything is trained or written.

    Args:
        config: a `TrainConfig`.

    Raises:
        ValueError: the data cannot be used, or the run directory exists.
    """
    path = None if config.run is None else check_new_path("run", config.run)
    if path is not None and path.exists():
        raise invalid(
            "run",
            "a directory that does not exist yet",
            f"{str(path)!r}",
            "Give another name, or move it away; to go on with it, vae-tf train --resume RUN.",
        )
    images = data.load(config.dataset, config.data)
    if config.binarize == "fixed":
        images = data.binarize(images)
    return _settle(config, images, path or _free_path(images.name, config))


def prepare_resume(path):
    """The plan of a run that was interrupted, to go on from its last checkpoint.

    Args:
        path: the run directory.

    Raises:
        ValueError: it is no run, it is completed, or its data are not what they were.
    """
    record = runs.load_record(path)
    if record.get("status") == "completed":
        hint = "Nothing is left of it to train: vae-tf evaluate RUN, or a new run with more steps."
        raise invalid("resume", "a run that was interrupted", f"{str(path)!r}, completed", hint)
    config = TrainConfig(**record["config"])
    return _settle(config, runs.load_images(record), pathlib.Path(path), resume=True)


def _settle(config, images, path, resume=False):
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
    return Plan(config, images, watched, path, batch_size, steps, rate, resume)


def _watched(config, images):
    """The images to train on and to validate on; the test images where none are held out."""
    if config.held_out is None:
        return images
    return data.hold_out(images, config.held_out)


def _free_path(name, config):
    """`runs/<data>_<recipe>_z<latent_dim>`, with a number behind it where that exists."""
    stem = f"{name.replace('/', '_')}_{config.recipe}_z{config.latent_dim}"
    return runs.free_path(pathlib.Path("runs") / stem)
