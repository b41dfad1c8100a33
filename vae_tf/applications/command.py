"""The commands of the applications: one table, and what all of them do.

To add one: a file of this folder with `run(task, progress)`, its configuration in `config.py`, a row
here, and a row of the README. Nothing here imports TensorFlow or Keras before a command runs.
"""

import dataclasses
import datetime
import importlib
import pathlib
import time

from vae_tf import data, files
from vae_tf.applications import config as configs
from vae_tf.errors import check_new_path, invalid
from vae_tf.evaluation.report import Section, write


@dataclasses.dataclass(frozen=True)
class Application:
    """A row of the table: the command, its module, its help in a line and in full, the class of its options.

    The module has `run(task, progress)`, which gives a `Result`, and where something
    can be wrong that the options do not show, `check(task)`; and `images(config)`, where it takes others.
    """

    name: str
    module_name: str
    help: str
    description: str
    config: str

    @property
    def config_class(self):
        return getattr(configs, self.config)

    @property
    def module(self):
        return importlib.import_module(f"vae_tf.applications.{self.module_name}")


APPLICATIONS = (
    Application(
        "denoise",
        "denoising",
        "corrupt images, bring them back, and measure how well",
        "Corrupt images, bring them back through the code, and measure PSNR and SSIM before and after, "
        "with a picture of each corruption.",
        "DenoiseConfig",
    ),
    Application(
        "inpaint",
        "inpainting",
        "fill a region of images that is missing",
        "Fill a region of images that is missing: several completions of each, drawn by turns from q(z|x) "
        "and p(x|z), and their error at the missing pixels. A model without noise gives one, by repeating "
        "its reconstruction.",
        "InpaintConfig",
    ),
    Application(
        "anomaly",
        "anomaly",
        "score how anomalous images are, and flag those above a threshold",
        "Score images, the higher the more anomalous. Where anomalies are known (--anomalous, "
        "--anomalies): how well each score tells them. With --false-alarms: choose a threshold on normal "
        "images, and keep it with the model. Else: flag what is above the model's threshold. Of --data "
        "every image is taken, but where it comes split.",
        "AnomalyConfig",
    ),
    Application(
        "retrieve",
        "retrieve",
        "find the images whose codes are nearest, and judge them by labels",
        "For each image of a split find the K nearest codes among the images of the other split, "
        "beside the K nearest by raw pixels; where there are labels, with the mean average precision.",
        "RetrieveConfig",
    ),
    Application(
        "cluster",
        "clustering",
        "find groups among the codes of images",
        "Find groups among the codes of images, compare them with the labels where there are any, and "
        "draw them on a plane.",
        "ClusterConfig",
    ),
    Application(
        "variations",
        "variations",
        "walk through the codes: around images, between them, along an attribute",
        "Walk through the space of codes and decode: around images (z = mean + scale * sigma * noise), "
        "along straight and spherical paths between them, or along what tells two labels apart.",
        "VariationsConfig",
    ),
    Application(
        "compress",
        "compression",
        "write binary images to a file at the rate of the ELBO; rates against distortion",
        "Measure what a model's code is worth in bits a pixel, against distortion, beside PNG and WebP. With "
        "a VAE and binary images: also write them to images.bits without loss, by bits-back coding; "
        "vae-tf decompress reads it. Of --data every image is taken, but where it comes split.",
        "CompressConfig",
    ),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What an application found: by name the figures, the sections of the report, and more files' content."""

    metrics: dict
    sections: list
    files: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Task:
    """An application with its source and images, checked: what `run(task, progress)` works on."""

    application: Application
    config: object
    source: object
    images: object
    path: pathlib.Path

    @property
    def x(self):
        return getattr(self.images, f"x_{self.config.split}")[: self.config.images]

    @property
    def y(self):
        """Labels of `x`, or None."""
        labels = getattr(self.images, f"y_{self.config.split}")
        return None if labels is None else labels[: self.config.images]

    @property
    def condition(self):
        """Of a model that has one: the labels of `x`."""
        return None if self.source.condition is None else self.y


def prepare(application, config):
    """Load the source and the images, and check all that can be wrong, before anything is computed.

    Raises:
        ValueError, TypeError: one of them cannot be used, or they do not fit.
    """
    from vae_tf.applications.sources import source_of

    is_run = (pathlib.Path(config.source) / "config.json").is_file()
    default = pathlib.Path(config.source if is_run else ".") / application.name
    path = check_new_path("out", config.out or files.free_path(default))
    if path.exists():
        raise invalid("out", "a directory that does not exist yet", repr(str(path)))
    source = source_of(config.source, config.model, config.trust_model)
    own = getattr(application.module, "images", lambda config: None)(config)
    images = own or (_of_run(config) if is_run else _others(config))
    if source.image_shape not in (None, images.image_shape):
        expected = f"images of shape {source.image_shape}, as the model takes them"
        raise invalid("data", expected, f"{images.name}, of shape {images.image_shape}")
    task = Task(application, config, source, images, path)
    if source.condition is not None and task.y is None:
        raise invalid("data", "images with labels, the model's condition", "no labels")
    if check := getattr(application.module, "check", None):
        check(task)
    return task


def _of_run(config):
    """The run's own images, or others as it would have them."""
    from vae_tf.evaluation.command import images_for
    from vae_tf.training import runs

    return images_for(runs.load_record(config.source), config)[0]


def _others(config):
    """Images for a SavedModel or a server, which know of none."""
    if config.dataset is None and config.data is None:
        hint = "--dataset mnist, for example, or --data PATH; a run directory knows its own."
        raise invalid("data", "the images to work on", "none", hint)
    images = data.load(config.dataset or "digits", config.data, value_range=data.ANY_VALUE)
    if config.binarize in (None, "none"):
        return images
    return data.binarize(images, config.seed if config.binarize == "dynamic" else data.FIXED_SEED)


def execute(task, progress=None, command=None):
    """Run an application, and write its report; the `Result`."""
    start = time.perf_counter()
    found = task.application.module.run(task, progress or (lambda *_: None))
    about = {
        "source": task.source.name,
        "data": f"{task.images.name}, {task.config.split}, {len(task.x)} images",
        "seed": task.config.seed,
        "date": datetime.date.today().isoformat(),
        **({"command": command} if command else {}),
        "seconds": round(time.perf_counter() - start, 1),
    }
    found = Result(
        {"settings": about} | found.metrics,
        [*found.sections, Section("To do it again", list(about.items()))],
        found.files,
    )
    title = f"{task.application.name.capitalize()}: {task.source.name}"
    write(task.path, title, found.sections, found.metrics, found.files)
    return found
