"""One step of a model on a batch: to train, to evaluate, to predict."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf import layers
from vae_tf.engine import inputs, replicas, update
from vae_tf.engine.state import State
from vae_tf.engine.step import current_step

EVALUATION_SEED = 20131220  # of `evaluate`'s noise: the day on which the VAE's paper appeared


class StepModel(keras.Model):
    """A `keras.Model` whose steps are made of what `models.base.Model` says that a model gives."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.distribute_strategy.scope():
            self.engine = State(self)

    @property
    def metrics(self):
        return [*self.engine.means.values(), *self._metrics]

    def train_step(self, batch):
        """One gradient step on a batch; returns the running means of its terms.

        The gradient is of the `objective` and of the layers' own losses (weight decay, for example),
        which are shown as `regularization_loss`.
        """
        with current_step() as step:
            x, *condition = self._observed(batch)
            rows, _ = replicas.global_rows(tf.shape(x)[0])
            with tf.GradientTape() as tape:
                terms, penalty = self._terms(x, condition, training=True)
                means = replicas.batch_means(terms, rows)
                objective = self.objective(means) + penalty
                num = tf.distribute.get_strategy().num_replicas_in_sync
                objective = self.optimizer.scale_loss(objective / num)
            gradients = tape.gradient(objective, self.trainable_weights)
            step.row = means | {name: ops.cast(v, "float32") for name, v in self.settings().items()}
            if "regularization_loss" in self.engine.shapes:
                step.row["regularization_loss"] = means["regularization_loss"] = penalty
            step.row["images"] = rows
            step.row["gradient_norm"] = update.apply_gradients(self, gradients, step)
        return self._add_to_means(x, means)

    def test_step(self, batch):
        """The batch's terms, with noise that depends on an image's number alone."""
        x, *_ = inputs_ = self.step_inputs(batch)
        rows, before = replicas.global_rows(tf.shape(x)[0])
        numbers = self.engine.evaluated + tf.cast(before + tf.range(tf.shape(x)[0]), tf.int64)
        with layers.drawing(layers.PerImage(EVALUATION_SEED, numbers)):
            x, *condition = self._observed(inputs_)
            terms, penalty = self._terms(x, condition, training=False)
        self.engine.evaluated.assign_add(tf.cast(rows, tf.int64))
        means = replicas.batch_means(terms, rows)
        if "regularization_loss" in self.engine.shapes:
            means["regularization_loss"] = penalty
        return self._add_to_means(x, means)

    def predict_step(self, batch):
        """Reconstructed images: the mean of p(x|z) at the code, without noise."""
        x, *condition = self.step_inputs(batch)
        return ops.cast(self.reconstruction(self.to_floats(x), *condition), "float32")

    def step_inputs(self, batch):
        """What a step uses of a batch `x`, `(x,)` or `(x, y)`: `(x,)`, or `(x, condition)`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if sample_weight is not None:
            raise inputs.refused("sample_weight", "a third element of the data")
        if self.condition is None:
            return (x,)
        return x, self.condition.checked(y)

    def _observed(self, batch):
        """A batch as the likelihood has it, and its condition."""
        x, *condition = self.step_inputs(batch)
        return self.observed(self.to_floats(x)), *condition

    def _terms(self, x, condition, training):
        """The model's terms, and the sum of what its layers lose."""
        self._clear_losses()
        terms = self.engine.call_terms.by_name(x, *condition, training=training)
        return terms, sum((ops.cast(loss, "float32") for loss in self.losses), ops.zeros(()))

    def _add_to_means(self, x, means):
        """Add a batch's means to the running ones, and return these."""
        trackers = self.engine.means
        for name, tracker in trackers.items():
            tracker.update_state(means[name], sample_weight=ops.shape(x)[0])
        return {name: tracker.result() for name, tracker in trackers.items()}

    def learn_terms(self, first):
        """Find out which terms the model has, from its first images; nothing of it is kept."""
        if self.engine.shapes:
            return
        x, *condition = (np.asarray(part)[:2] for part in first)
        with layers.drawing(layers.PerImage(EVALUATION_SEED, np.arange(len(x)))):
            x, *condition = self._observed((tf.constant(x), *map(tf.constant, condition)))
            terms, _ = self._terms(x, condition, training=False)
        shapes = {name: tuple(term.shape[1:]) for name, term in terms.items()}
        if self.losses:
            shapes["regularization_loss"] = ()
        self._clear_losses()
        self.engine.learn(shapes, self.settings())
