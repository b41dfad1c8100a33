"""Layers with randomness in them."""

import math

import keras
import numpy as np
from keras import ops

from vae_tf.seeding import normal


@keras.saving.register_keras_serializable(package="vae_tf")
class Sampling(keras.layers.Layer):
    """The reparameterisation trick: z = μ + exp(½ log σ²)·ε, with ε ~ N(0, I).

    The noise does not depend on the inputs, so the gradient passes to both of them:
    ∂z/∂μ = 1 and ∂z/∂(log σ²) = ½ exp(½ log σ²)·ε.

    Args:
        seed: an integer that fixes the sequence of ε, or None for a random one.

    Input: `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`.
    Output: `z`, of the same shape. Every call draws new noise: its key is (seed, number of the call).

    Example:
        >>> z = Sampling(seed=0)((ops.zeros((2, 10)), ops.zeros((2, 10))))
        >>> tuple(z.shape)
        (2, 10)

    Source: Kingma & Welling (2014), section 2.4.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        z_mean, z_log_var = inputs
        key = ops.unstack(ops.cast(self.seed_generator.next(), "uint32"))
        epsilon = normal(key, ops.shape(z_mean)[0], math.prod(z_mean.shape[1:]))
        epsilon = ops.cast(ops.reshape(epsilon, ops.shape(z_mean)), z_mean.dtype)
        return z_mean + ops.exp(0.5 * z_log_var) * epsilon

    def save_own_variables(self, store):
        """Keep the state of the noise, which Keras leaves out, so that training can go on."""
        store["seed_state"] = self.seed_generator.state.value.numpy()

    def load_own_variables(self, store):
        if "seed_state" in store:
            self.seed_generator.state.assign(np.asarray(store["seed_state"]))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
