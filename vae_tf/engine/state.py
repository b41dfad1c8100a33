"""What the engine knows of a model while it is trained: its terms, and where training stands."""

import keras
import numpy as np
import tensorflow as tf

NUMBERS = ("gradient_norm", "images")  # what is known of each step beside its terms and settings


class TermsCall(keras.layers.Layer):
    """A model's `terms` as the call of a layer: Keras then tells every layer in it of `training`."""

    def __init__(self, model):
        super().__init__(dtype="float32", autocast=False)
        self._terms = model.terms  # a method, which Keras does not take for a layer of this one
        self.built = True

    def call(self, *inputs, training=False):
        terms = self._terms(*inputs, training=training)
        self._names = list(terms)
        return list(terms.values())  # Keras would sort a dictionary

    def by_name(self, *inputs, training):
        """The terms as the model gives them."""
        values = self(*inputs, training=training)
        return dict(zip(self._names, values, strict=True))


class State:
    """The engine's own attributes of a model, which neither Keras nor the model looks at.

    Attributes:
        call_terms: gives the model's terms, with `training`.
        step_limit: how many steps the optimizer may make; None for any number.
        skipped_steps: of the next epoch, as made before an interruption; see `Checkpoints`.
        feed: while `fit` runs on arrays, `(arrays, order.Order)`.
        unreached: the paths of weights that the objective does not depend on.
        shapes: by name of a term, the shape of one image's; settings: the names of the model's.
        evaluated: how many images `evaluate` has seen.
        extra_logs: the names of what an overridden `train_step` logs beside the metrics.
        means: by name of a term of one number, the running mean that Keras shows.
    """

    def __init__(self, model):
        self.call_terms = TermsCall(model)
        self.step_limit, self.skipped_steps = None, 0
        self.feed, self.listeners, self.unreached = None, (), set()
        self.shapes, self.settings, self.means = {}, (), {}
        self.extra_logs = None
        self.evaluated = tf.Variable(
            0, False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    def learn(self, shapes, settings):
        """Take note of the terms that a model has, and make their running means."""
        self.shapes, self.settings = shapes, tuple(settings)
        self.means = {name: keras.metrics.Mean(name) for name in shapes if not shapes[name]}

    @property
    def row_sizes(self):
        """All that a step leaves for callbacks: how many numbers each is, by name."""
        sizes = {name: int(np.prod(shape)) for name, shape in self.shapes.items()}
        return sizes | dict.fromkeys((*self.settings, *NUMBERS), 1)

    @property
    def row_size(self):
        return sum(self.row_sizes.values())

    def split(self, trace):
        """`(terms, numbers)` by name, of rows `(steps, row_size)`."""
        sizes = self.row_sizes
        parts = np.split(trace, np.cumsum(list(sizes.values()))[:-1], axis=1)
        parts = dict(zip(sizes, parts, strict=True))
        shapes = self.shapes | dict.fromkeys((*self.settings, *NUMBERS), ())
        parts = {name: parts[name].reshape(-1, *shapes[name]) for name in sizes}
        return {name: parts.pop(name) for name in self.shapes}, parts

    def announce(self, steps):
        """Give the steps of an execution to the callbacks that ask for them."""
        for listener in self.listeners:
            listener.on_steps_end(steps)
