"""From gradients to new weights: missing gradients, the norm, several replicas, the order of updates."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from vae_tf.engine import replicas


def apply_gradients(model, gradients, step):
    """Update the trainable weights; returns the joint norm of the gradients where it is measured."""
    pairs = zip(gradients, model.trainable_weights, strict=True)
    pairs = [(tf.convert_to_tensor(g), w) for g, w in _reached(model, pairs)]
    gradients, weights = replicas.total([g for g, _ in pairs]), [w for _, w in pairs]
    length = norm(gradients, step.measured) / _loss_scale(model.optimizer)
    if step.in_loop and model.jit_compile and gradients:
        hold_back(weights, gradients)
    if replicas.several():  # each of them passes an equal part on, and the optimizer adds them up
        num = tf.distribute.get_strategy().num_replicas_in_sync
        gradients = [g / num for g in model.optimizer._clip_gradients(gradients)]
    model.optimizer.apply_gradients(list(zip(gradients, weights, strict=True)))
    return length


def _reached(model, pairs):
    """Those with a gradient; a weight that the objective does not reach is named, once."""
    pairs = list(pairs)
    missing = {weight.path for gradient, weight in pairs if gradient is None}
    if missing - model.engine.unreached:
        model.engine.unreached |= missing
        warnings.warn(
            f"The objective does not depend on {', '.join(sorted(missing))}: training leaves "
            "them as they are. Is a layer not used, or a gradient stopped?",
            stacklevel=2,
        )
    return [pair for pair in pairs if pair[0] is not None]


def _loss_scale(optimizer):
    """The factor by which float16 training has scaled the objective, so that nothing underflows."""
    return optimizer.scale_loss(tf.ones(()))


def norm(gradients, measured):
    """The joint norm in the steps that are measured, NaN in others: it takes a sixth of a step.

    Each gradient has a condition of its own: one for all would keep all until the last is there.
    """

    def square(gradient):
        return 2 * tf.cast(tf.nn.l2_loss(gradient), tf.float32)

    if measured is True:
        return tf.sqrt(sum(map(square, gradients), tf.zeros(())))
    nan = tf.constant(np.nan)
    squares = [tf.cond(measured, lambda g=g: square(g), lambda: nan) for g in gradients]
    return tf.sqrt(sum(squares))


def hold_back(weights, gradients):
    """Let no weight be updated before the first layer's gradient, the last to come, is there.

    Otherwise XLA copies each weight in each step, because backpropagation may still read it. What is
    added is zero. The optimizer's own variables do not wait: each gradient is taken into them while
    it is still in the processor's cache.
    """
    zero = tf.minimum(tf.abs(tf.cast(tf.reshape(gradients[0], [-1])[0], tf.float32)), 0.0)
    zero = tf.where(tf.math.is_nan(zero), 0.0, zero)
    for weight in weights:
        value = weight.value if isinstance(weight, keras.Variable) else weight
        value.assign_add(tf.broadcast_to(tf.cast(zero, value.dtype), value.shape))
