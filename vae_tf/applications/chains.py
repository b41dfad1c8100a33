"""Chains that fill the missing pixels of images: alternating sampling, or reconstruction repeated."""

import functools

import numpy as np
import tensorflow as tf

from vae_tf.distributions import Normal
from vae_tf.engine.loop import compiled
from vae_tf.layers import Noise, PerImage, drawing
from vae_tf.random import row_seeds

STILL = 1e-6  # a change of a pixel that is none


class Chain:
    """How rows are filled: those of the images `rows`, of which they are the completions `which`."""

    def __init__(self, source, x, missing, condition, steps, seed):
        self.source, self.x, self.missing, self.steps = source, x, missing, steps
        self.condition = condition
        if source.condition is not None:
            self.condition = source.condition.rows(condition, len(x))
        elif condition is not None:  # of a server, which alone knows whether it has one
            self.condition = np.broadcast_to(condition, (len(x), *np.shape(condition)[1:]))
        self.latent_shape = source.latent_shape
        if source.latent_shape is None:  # of a server, which then says too whether it has q(z|x)
            self.latent_shape = source.encode(x[:1], self._condition([0])).shape[1:]
        model = source.model
        self.draws = model is not None and model.likelihood.support.contains(x)
        self.range = (-np.inf, np.inf) if model is None else model.value_range
        self.seeds = row_seeds(seed, 2 * (steps + 1)).reshape(-1, 2)  # of z and of x, at each step
        xla = model is None or model.suits_xla
        self._draw_z, self._draw_x = _drawing_z(xla), _drawing(_draw_x(model), xla)

    def sampled(self, rows, which, show):
        """`(means, draws or None)` at the end of chains of alternating sampling."""
        condition = self._condition(rows)
        posterior = [np.zeros((len(rows), *self.latent_shape), "float32")] * 2
        for step, (of_z, of_x) in enumerate(self.seeds):
            show(step / self.steps)
            z = self._draw_z(of_z, rows, which, *posterior)
            state = self._filled(z, condition, rows, which, of_x)
            if step < self.steps:
                posterior = self.source.posterior(state, condition)
        means = self._kept(self.source.decode(z, condition), rows)
        return means, state if self.draws else None

    def repeated(self, rows, which, show):
        """The same by repeating the reconstruction, until it changes nothing more."""
        condition, state = self._condition(rows), self.x[rows]
        for step in range(self.steps):
            show(step / self.steps)
            before, state = state, self._kept(self.source.reconstruct(state, condition), rows)
            if np.abs(state - before).max() < STILL:
                break
        show(1)
        return state, None

    def _condition(self, rows):
        return None if self.condition is None else np.asarray(self.condition)[rows]

    def _filled(self, z, condition, rows, which, seed):
        """Images with draws from p(x|z) at the missing pixels; with E[x|z] where none are made."""
        if not self.draws:
            return self._kept(self.source.decode(z, condition), rows)
        condition = self.source.model.condition_rows(condition, len(z))
        return self._kept(self._draw_x(seed, rows, which, z, *condition), rows)

    def _kept(self, images, rows):
        """Images with the pixels that are given."""
        return np.where(self.missing[rows], np.clip(images, *self.range), self.x[rows])


def _draw_z(noise, z_mean, z_log_var):
    return Normal(z_mean, z_log_var).sample(noise)


def _draw_x(model):
    def draw(noise, z, *condition):
        return model.likelihood.distribution(model.decode(z, *condition)).sample(noise)

    return draw


def _drawing(draw, xla):
    """A compiled function of a seed, the numbers of the images and completions, and arrays: an array."""
    noise = Noise(seed=0)

    def run(seed, rows, which, *arrays):
        with drawing(PerImage(seed, rows, first_sample=which[:, None])):
            return draw(noise, *arrays)

    traced = compiled(run, jit_compile=xla)
    return lambda *arrays: traced(*map(tf.constant, arrays)).numpy()


@functools.cache  # no two chains differ in it
def _drawing_z(xla):
    return _drawing(_draw_z, xla)
