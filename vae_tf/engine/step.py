"""One train step: its noise, what it measures, and what it leaves for callbacks."""

import contextlib
import contextvars
import dataclasses

import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf import random
from vae_tf.engine import replicas
from vae_tf.layers import Source, drawing

AHEAD = 2**21  # numbers that are drawn ahead at most, for all steps of an execution
_current = contextvars.ContextVar("step", default=None)


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of an execution, for callbacks' `on_steps_end`.

    first: the number of the first of them, from 1.
    terms: by name the means over each step's images, `(steps,)` or `(steps, size)`.
    numbers: by name what else is known of each step, `(steps,)`: `gradient_norm` (NaN where it was not
        measured), `images`, and the model's `settings`.
    """

    first: int
    terms: dict
    numbers: dict

    def __len__(self):
        return len(self.numbers["images"])

    @property
    def last(self):
        return self.first + len(self) - 1


class Step(Source):
    """The source of a step's noise, and the place where the step leaves its terms.

    A number depends on the layer's seed, the number of the step, the number of the draw in it, and the
    row's place in the global batch. In a compiled loop the numbers of all its steps are drawn at
    once, before it: one step's alone keep the second core waiting at the beginning of each step.

    Args:
        measured: whether the gradient's norm is to be taken; a bool or a tensor.
        rows: images in this replica's batch; needed where there are several replicas.
        loop: `(steps, index)` in a compiled loop: how many it may make, and which this is.
    """

    def __init__(self, measured=True, rows=None, loop=None):
        super().__init__()
        self.measured, self.in_loop, self.row = measured, loop is not None, {}
        self._loop, self._layers = loop, {}
        self._outside = tf.compat.v1.get_default_graph().outer_graph if loop else None
        self._first_row = 0 if rows is None else replicas.global_rows(rows)[1]

    def key(self, layer):
        return self._key(layer, 0)

    def rows(self, shape):
        return ops.arange(shape[0]) + self._first_row if replicas.several() else shape[0]

    def draw(self, layer, law, shape, num_samples=None):
        known = all(isinstance(size, int) for size in shape)
        if self._loop is None or not known:
            return super().draw(layer, law, shape, num_samples)
        steps, index = self._loop
        if steps * int(np.prod(shape)) * (num_samples or 1) > AHEAD:
            return super().draw(layer, law, shape, num_samples)
        axes = (1, 1) if num_samples is None else (1, 1, 1)
        with self._outside.as_default():
            keys = self._key(layer, ops.arange(steps, dtype="int64"))
            keys = [ops.reshape(ops.broadcast_to(word, (steps,)), (steps, *axes)) for word in keys]
            drawn = self.numbers(law, keys, shape, num_samples, leading=(steps,))
        return drawn[index]

    def _key(self, layer, later):
        """The key of this draw of a layer's, in the step that is `later` steps from now."""
        self._layers[id(layer)] = layer
        number = self.number(layer)
        seed, step = ops.unstack(ops.convert_to_tensor(layer.seed_generator.state))
        key = ops.cast(seed, "uint32"), ops.cast(step + later, "uint32")
        return random.fold(key, number) if number else key

    @contextlib.contextmanager
    def current(self):
        """Within the block this step is the one that is made."""
        token = _current.set(self)
        try:
            with drawing(self):
                yield self
        finally:
            _current.reset(token)

    def finish(self):
        """Let the layers that were drawn from go on to the next step."""
        for layer in self._layers.values():
            layer.seed_generator.state.assign_add(np.array([0, 1]))


@contextlib.contextmanager
def current_step():
    """The step that is being made; a new one where none is, as in a loop of the user's own."""
    if (step := _current.get()) is not None:
        yield step
        return
    with (step := Step()).current():
        yield step
    step.finish()
