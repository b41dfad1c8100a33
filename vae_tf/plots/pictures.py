"""The pictures of a run: one table, which `draw` goes through.

To add one: a function that returns a `Figure`, and a row here.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from vae_tf.distributions import is_standard_normal
from vae_tf.errors import InvalidValueError
from vae_tf.plots.codes import COMPONENTS, project, top_infer, top_label, traversal
from vae_tf.plots.curves import train_process
from vae_tf.plots.grids import generated, reconstruct

NUM = 100  # images of a grid


@dataclasses.dataclass(frozen=True)
class Scene:
    """What pictures are made of: a model, images `x` with labels `y` or None, a history, a seed."""

    model: object
    x: np.ndarray
    y: np.ndarray | None = None
    history: dict | None = None
    seed: int = 0

    @functools.cached_property
    def picked(self):
        """The numbers of some of the images, in their order."""
        num = min(NUM, len(self.x))
        return np.sort(np.random.default_rng(self.seed).choice(len(self.x), num, replace=False))

    @property
    def condition(self):
        """Of a model that has one: the labels."""
        return None if self.model.condition is None or self.y is None else np.asarray(self.y)

    def condition_at(self, rows):
        return None if self.condition is None else self.condition[rows]

    @functools.cached_property
    def code(self):
        return self.model.code(self.x, condition=self.condition)

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

    def decode(self, z):
        """Images of codes, with the condition of the first image where there is one."""
        first = self.condition_at(self.picked[:1])
        condition = None if first is None else np.repeat(first, len(z), axis=0)
        return self.model.decode_images(z, condition=condition)


def _reconstruct(scene):
    x, condition = scene.x[scene.picked], scene.condition_at(scene.picked)
    return reconstruct(x, scene.model.reconstruct(x, condition=condition))


def _generated(scene):
    if scene.condition is None:
        return generated(scene.model.generate(NUM, seed=scene.seed))
    condition = scene.condition_at(np.resize(scene.picked, NUM))
    images = scene.model.generate(NUM, seed=scene.seed, condition=condition)
    return generated(images, "Decoded draws from the prior, with labels of test images")


def _encodings(scene):
    title = "Encodings of the test set, two principal components"
    return top_label(project(scene.code), scene.y, title, COMPONENTS)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of the table: the file's name, whether a `Scene` has what it takes, and the figure."""

    name: str
    applies: Callable
    figure: Callable


PICTURES = (
    Picture("reconstruct", lambda s: True, _reconstruct),
    Picture("generated", lambda s: s.has_draws, _generated),
    Picture("train_process", lambda s: s.history is not None, lambda s: train_process(s.history)),
    Picture(
        "top_infer",
        lambda s: s.code_dim == 2 and is_standard_normal(s.prior),
        lambda s: top_infer(s.decode),
    ),
    Picture("top_label", lambda s: s.code_dim == 2, lambda s: top_label(s.code, s.y)),
    Picture(
        "traversal",
        lambda s: s.code_dim not in (0, 2) and s.has_draws,
        lambda s: traversal(s.decode, s.code[s.picked[0]]),
    ),
    Picture("encodings", lambda s: s.code_dim > 2, _encodings),
)


def figures(model, x, y=None, history=None, seed=0, only=None):
    """Every picture that applies to a model, its images and its history: `Figure`s by name.

    Args:
        model: any `vae_tf.Model`.
        x, y: images, and their labels or None; the condition of a model that has one.
        history: `runs.load_history(run)`, or None for no picture of it.
        seed: picks the images and the draws from the prior.
        only: names from `PICTURES`; by default all.
    """
    scene = Scene(model, x, y, history, seed)
    rows = [row for row in PICTURES if only is None or row.name in only]
    return {row.name: row.figure(scene) for row in rows if row.applies(scene)}


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
        figure.savefig(paths[-1], dpi=120)
    return paths
