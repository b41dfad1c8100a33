"""The pictures of a run: one table, which `draw` goes through.

To add one: a function that returns a `Figure`, and a row here.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import numpy as np
from keras import ops

from vae_tf import files
from vae_tf.distributions import Normal, is_standard_normal
from vae_tf.engine.monitor import ACTIVE
from vae_tf.errors import InvalidValueError
from vae_tf.plots.codes import encodings, label_text, latent_plane
from vae_tf.plots.curves import train_process
from vae_tf.plots.grids import classes, completions, generated, reconstruct
from vae_tf.plots.maps import code_maps, code_usage
from vae_tf.plots.traversals import OF_CODES, OF_PRIOR, traversal

NUM = 100  # images of a grid
CLASSES, COLUMNS, COMPLETIONS = 20, 10, 5  # rows and columns of pictures, at most
MAPS = 20  # images whose maps of codes are shown
PIXELS = 2**24  # of all images of a picture, at most


@dataclasses.dataclass(frozen=True)
class Scene:
    """What pictures are made of: a model, images `x` with labels `y` or None, a history, a seed.

    split: what the images are called. parts: `data.Quadrants`, where `x` and `y` are parts of images.
    """

    model: object
    x: np.ndarray
    y: np.ndarray | None = None
    history: dict | None = None
    seed: int = 0
    split: str = "test"
    parts: object = None

    def few(self, num):
        """`num`, or as many images as a picture has room for: large ones are fewer."""
        return max(1, min(num, PIXELS // math.prod(self.x.shape[1:])))

    @functools.cached_property
    def picked(self):
        """The numbers of some of the images, in their order."""
        num = self.few(min(NUM, len(self.x)))
        return np.sort(np.random.default_rng(self.seed).choice(len(self.x), num, replace=False))

    @property
    def labels(self):
        """One for each image, to be shown; None where there are none, or vectors."""
        return self.y if np.ndim(self.y) == 1 else None

    def whole(self, x, condition):
        """Images as they are to be shown: with the part that is given, where they are the rest."""
        return x if self.parts is None else self.parts.joined(x, condition)

    @property
    def condition(self):
        """Of a model that has one: the labels."""
        return None if self.model.condition is None or self.y is None else np.asarray(self.y)

    def condition_at(self, rows):
        return None if self.condition is None else self.condition[rows]

    @functools.cached_property
    def code(self):
        return self.model.code(self.x, condition=self.condition, batch_size=self.few(1000))

    @property
    def code_dim(self):
        """The length of a code that is a vector; 0 of any other."""
        return self.code.shape[1] if self.code.ndim == 2 else 0

    @functools.cached_property
    def prior(self):
        """p(z), with the condition of the first image where there is one; None where it is not known."""
        first = self.condition_at(self.picked[:1])
        try:
            return self.model.prior and self.model.prior(*(() if first is None else (first,)))
        except InvalidValueError:  # the model refuses to say
            return None

    @property
    def has_draws(self):
        known = self.model.prior is None or self.prior is not None
        return self.model.sample_prior is not None and known

    @functools.cached_property
    def kl(self):
        """Nats of each dimension, mean over the images; None where q(z|x) or p(z) is not known to be normal."""
        if self.model.posterior is None or not is_standard_normal(self.prior):
            return None
        total, batch = 0.0, self.few(1000)
        for start in range(0, len(self.x), batch):
            rows = slice(start, start + batch)
            condition = () if self.condition is None else (self.condition[rows],)
            posterior = self.model.posterior(self.x[rows], *condition)
            if not isinstance(posterior, Normal) or len(posterior.mean().shape) != 2:
                return None
            total = total + ops.convert_to_numpy(posterior.kl()).sum(0)
        return total / len(self.x)

    @property
    def num_classes(self):
        """How many labels the model is told apart; None where it is told of none, or of anything else."""
        return self.model.condition and self.model.condition.num_classes

    def decode(self, z):
        """Images of codes, with the condition of the first image where there is one."""
        first = self.condition_at(self.picked[:1])
        condition = None if first is None else np.repeat(first, len(z), axis=0)
        return self.whole(self.model.decode_images(z, condition=condition), condition)


def _reconstruct(scene):
    x, condition = scene.x[scene.picked], scene.condition_at(scene.picked)
    again = scene.model.reconstruct(x, condition=condition)
    return reconstruct(*(scene.whole(images, condition) for images in (x, again)))


def _generated(scene):
    num = scene.few(NUM)
    if scene.condition is None:
        return generated(scene.model.generate(num, seed=scene.seed))
    condition = scene.condition_at(np.resize(scene.picked, num))
    images = scene.model.generate(num, seed=scene.seed, condition=condition)
    title = f"Decoded draws from the prior, with labels of {scene.split} images"
    return generated(images, title)


def _classes(scene):
    """The seeds are the same in each row, and so is z, where its prior is not of the label."""
    count = scene.model.condition.num_classes
    labels = np.unique(np.linspace(0, count - 1, min(count, CLASSES)).round().astype(int))
    num = scene.few(COLUMNS * len(labels)) // len(labels) or 1
    rows = [scene.model.generate(num, seed=scene.seed, condition=label) for label in labels]
    same = "z" if is_standard_normal(scene.prior) else "draws for z"
    return classes(rows, labels, f"One label a row, the same {same} along a column")


def _completions(scene):
    chosen = scene.picked[:COLUMNS]
    x, given = scene.x[chosen], scene.condition_at(chosen)
    every = np.repeat(given, COMPLETIONS, axis=0)
    made = scene.model.generate(len(every), seed=scene.seed, condition=every)
    made = scene.whole(made, every).reshape(len(x), COMPLETIONS, *scene.parts.whole_shape)
    return completions(scene.whole(x, given), made.swapaxes(0, 1), scene.parts.given)


def _encodings(scene):
    return encodings(scene.code, scene.labels, f"Encodings of the {scene.split} set")


def _traversal(scene):
    """From the first image that is picked; in units of the prior, or where it is not known of the codes."""
    first = scene.picked[0]
    label = "" if scene.labels is None else f"\nlabel {label_text(scene.labels[first])}"
    name = f"image x_{scene.split}[{first}]{label}"
    image = scene.whole(scene.x[[first]], scene.condition_at([first]))[0]
    options = {"image": image, "name": name, "unit": OF_PRIOR, "kl": scene.kl}
    if scene.kl is not None:
        options["active"] = scene.code.var(axis=0) > ACTIVE
    if not is_standard_normal(scene.prior):
        options |= {"centre": scene.code.mean(0), "scale": scene.code.std(0), "unit": OF_CODES}
    return traversal(scene.decode, scene.code[first], rows=scene.few(220) // 11 or 1, **options)


def _code_maps(scene):
    x = scene.x[scene.picked[:MAPS]]
    images = scene.model.reconstruct(x)
    return code_maps(x, scene.model.codes(x), images, scene.model.embeddings)


def _code_usage(scene):
    return code_usage(scene.model.codes(scene.x), scene.model.num_codes)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of the table: the file's name, what a `Scene` needs for it, and the figure."""

    name: str
    needs: Callable
    figure: Callable


PICTURES = (
    Picture("reconstruct", lambda s: True, _reconstruct),
    Picture("generated", lambda s: s.has_draws and s.parts is None, _generated),
    Picture("classes", lambda s: s.has_draws and s.num_classes, _classes),
    Picture("completions", lambda s: s.has_draws and s.parts is not None, _completions),
    Picture(
        "train_process",
        lambda s: s.history is not None,
        lambda s: train_process(s.history, s.model.unit),
    ),
    Picture(
        "latent_plane",
        lambda s: s.code_dim == 2 and is_standard_normal(s.prior),
        lambda s: latent_plane(s.decode, math.isqrt(s.few(400))),
    ),
    Picture("traversal", lambda s: s.code_dim not in (0, 2) and s.has_draws, _traversal),
    Picture("code_maps", lambda s: s.model.codes is not None, _code_maps),
    Picture("code_usage", lambda s: s.model.codes is not None, _code_usage),
    Picture("encodings", lambda s: s.code_dim > 1, _encodings),
)


def figures(model, x, y=None, history=None, seed=0, only=None, split="test", parts=None):
    """Every picture that applies to a model, its images and its history: `Figure`s by name.

    Args:
        model: any `vae_tf.Model`.
        x, y: images, and their labels or None; the condition of a model that has one.
        history: `runs.load_history(run)`, or None for no picture of it.
        seed: picks the images and the draws from the prior.
        only: names from `PICTURES`; by default all.
        split: what the images are called.
        parts: the `data.Quadrants` that `x` and `y` are of; None for whole images.
    """
    scene = Scene(model, x, y, history, seed, split, parts)
    rows = [row for row in PICTURES if only is None or row.name in only]
    return {row.name: row.figure(scene) for row in rows if row.needs(scene)}


def parts_of(images):
    """`images` where they are parts of images, given ones and the rest; None of whole ones."""
    return images if hasattr(images, "joined") else None


def draw(path, model, images, history, seed=0, only=None):
    """Write the pictures of a run into its directory.

    Args:
        path: the run directory.
        model: its model.
        images: its `data.Images`.
        history: its `runs.load_history`.
        seed: picks the test images and the draws from the prior.
        only: names from `PICTURES`; by default all.

    Returns:
        The paths written.
    """
    paths, parts = [], parts_of(images)
    made = figures(model, images.x_test, images.y_test, history, seed, only, parts=parts)
    for name, figure in made.items():
        paths.append(pathlib.Path(path) / f"{name}.png")
        with files.aside(paths[-1]) as scratch:
            figure.savefig(scratch, dpi=120)
    return paths
