"""Encoders and decoders: ordinary Keras models, to be looked at, replaced or used alone."""

import itertools
import math

import keras
import numpy as np
from keras import layers, ops

LAST = "glorot_uniform"  # of the layers that give a distribution's parameters


def dense_encoder(
    image_shape,
    latent_dim,
    hidden_units=(512, 384, 256),
    activation="relu",
    kernel_initializer="he_uniform",
    seed=None,
):
    """x -> Dense layers -> (z_mean, z_log_var): the parameters of q(z|x) = N(μ, diag σ²).

    Args:
        image_shape: the shape of one image, without the batch.
        latent_dim: the size of the code.
        hidden_units: the widths of the hidden layers; none at all gives a linear encoder.
        activation: any Keras activation.
        kernel_initializer: of the hidden layers, any Keras initializer; the last one's is Glorot's.
        seed: fixes the initial weights.

    Returns:
        A `keras.Model` from `(batch, *image_shape)`, float in [0, 1], to two tensors of shape
        `(batch, latent_dim)`.
    """
    seeds = _seeds(seed)
    inputs = keras.Input(tuple(image_shape), name="x")
    hidden = layers.Flatten(name="flatten")(inputs)
    for index, units in enumerate(hidden_units):
        hidden = _dense(units, activation, f"hidden_{index}", kernel_initializer, seeds)(hidden)
    both = _dense(2 * latent_dim, None, "z_mean_and_log_var", LAST, seeds)(hidden)  # one product
    z_mean, z_log_var = ops.split(both, 2, axis=-1)
    return keras.Model(inputs, [z_mean, z_log_var], name="encoder")


def dense_decoder(
    latent_dim,
    image_shape,
    hidden_units=(256, 384, 512),
    activation="relu",
    kernel_initializer="glorot_uniform",
    seed=None,
):
    """z -> Dense layers -> the parameters of p(x|z), unbounded (logits for a Bernoulli).

    Arguments as for `dense_encoder`, widths in the order in which the decoder applies them.

    Returns:
        A `keras.Model` from `(batch, latent_dim)` to `(batch, *image_shape)`.
    """
    seeds = _seeds(seed)
    inputs = keras.Input((latent_dim,), name="z")
    hidden = inputs
    for index, units in enumerate(hidden_units):
        hidden = _dense(units, activation, f"hidden_{index}", kernel_initializer, seeds)(hidden)
    logits = _dense(math.prod(image_shape), None, "logits", LAST, seeds)(hidden)
    outputs = layers.Reshape(tuple(image_shape), name="image")(logits)
    return keras.Model(inputs, outputs, name="decoder")


def _seeds(seed):
    """A seed for each layer's initial weights; endless Nones where `seed` is None."""
    if seed is None:
        return itertools.repeat(None)
    return map(int, np.random.SeedSequence(seed).generate_state(99))


def _dense(units, activation, name, initializer, seeds):
    """A Dense layer whose initial weights have the next of the seeds."""
    initializer = keras.initializers.get(initializer)
    config, seed = initializer.get_config(), next(seeds)
    config |= {"seed": seed} if "seed" in config else {}
    kernel = type(initializer).from_config(config)
    return layers.Dense(units, activation=activation, kernel_initializer=kernel, name=name)
