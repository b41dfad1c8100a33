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
from vae_tf.plots.grids import generated, reconstruct
from vae_tf.plots.traversals import OF_CODES, OF_PRIOR, traversal

NUM = 100  # images of a grid
PIXELS = 2**24  # of all images of a picture, at most


@dataclasses.dataclass(frozen=True)
class Scene:
    """What pictures are made of: a model, images `x` with labels `y` or None, a history, a seed.

    split: what the images are called.
    """

    model: object
    x: np.ndarray
    y: np.ndarray | None = None
    history: dict | None = None
    seed: int = 0
    split: str = "test"

    def few(self, num):
        """`num`, or as many images as a picture has room for: large ones are fewer."""
        return max(1, min(num, PIXELS // math.prod(self.x.shape[1:])))

    @functools.cached_property
    def picked(self):
        """The numbers of some of the images, in their order."""
        num = self.few(min(NUM, len(self.x)))
        return np.sort(np.random.default_rng(self.seed).choice(len(self.x), num, replace=False))

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

    def decode(self, z):
        """Images of codes, with the condition of the first image where there is one."""
        first = self.condition_at(self.picked[:1])
        condition = None if first is None else np.repeat(first, len(z), axis=0)
        return self.model.decode_images(z, condition=condition)


def _reconstruct(scene):
    x, condition = scene.x[scene.picked], scene.condition_at(scene.picked)
    return reconstruct(x, scene.model.reconstruct(x, condition=condition))


def _generated(scene):
    num = scene.few(NUM)
    if scene.condition is None:
        return generated(scene.model.generate(num, seed=scene.seed))
    condition = scene.condition_at(np.resize(scene.picked, num))
    images = scene.model.generate(num, seed=scene.seed, condition=condition)
    title = f"Decoded draws from the prior, with labels of {scene.split} images"
    return generated(images, title)


def _encodings(scene):
    return encodings(scene.code, scene.y, f"Encodings of the {scene.split} set")


def _traversal(scene):
    """From the first image that is picked; in units of the prior, or where it is not known of the codes."""
    first = scene.picked[0]
    label = "" if scene.y is None else f"\nlabel {label_text(scene.y[first])}"
    name = f"image x_{scene.split}[{first}]{label}"
    options = {"image": scene.x[first], "name": name, "unit": OF_PRIOR, "kl": scene.kl}
    if scene.kl is not None:
        options["active"] = scene.code.var(axis=0) > ACTIVE
    if not is_standard_normal(scene.prior):
        options |= {"centre": scene.code.mean(0), "scale": scene.code.std(0), "unit": OF_CODES}
    return traversal(scene.decode, scene.code[first], rows=scene.few(220) // 11 or 1, **options)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of the table: the file's name, what a `Scene` needs for it, and the figure."""

    name: str
    needs: Callable
    figure: Callable


PICTURES = (
    Picture("reconstruct", lambda s: True, _reconstruct),
    Picture("generated", lambda s: s.has_draws, _generated),
    Picture("train_process", lambda s: s.history is not None, lambda s: train_process(s.history)),
    Picture(
        "latent_plane",
        lambda s: s.code_dim == 2 and is_standard_normal(s.prior),
        lambda s: latent_plane(s.decode, math.isqrt(s.few(400))),
    ),
    Picture("traversal", lambda s: s.code_dim not in (0, 2) and s.has_draws, _traversal),
    Picture("encodings", lambda s: s.code_dim > 1, _encodings),
)


def figures(model, x, y=None, history=None, seed=0, only=None, split="test"):
    """Every picture that applies to a model, its images and its history: `Figure`s by name.

    Args:
        model: any `vae_tf.Model`.
        x, y: images, and their labels or None; the condition of a model that has one.
        history: `runs.load_history(run)`, or None for no picture of it.
        seed: picks the images and the draws from the prior.
        only: names from `PICTURES`; by default all.
        split: what the images are called.
    """
    scene = Scene(model, x, y, history, seed, split)
    rows = [row for row in PICTURES if only is None or row.name in only]
    return {row.name: row.figure(scene) for row in rows if row.needs(scene)}


def draw(path, model, images, history, seed=0):
    """Write the pictures of a run into its directory.

    Args:
        path: the run directory.
        model: its model.
        images: its `data.Images`.
        history: its `runs.load_history`.
        seed: picks the test images and the draws from the prior.

    Returns:
        The paths written.
    """
    paths = []
    for name, figure in figures(model, images.x_test, images.y_test, history, seed).items():
        paths.append(pathlib.Path(path) / f"{name}.png")
        with files.aside(paths[-1]) as scratch:
            figure.savefig(scratch, dpi=120)
    return paths
