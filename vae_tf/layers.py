"""Layers with randomness in them."""

import math

import keras
import numpy as np
from keras import ops

from vae_tf import threefry

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"vae_tf trains and exports with TensorFlow, and Keras is set to '{keras.backend.backend()}'. "
        "Set KERAS_BACKEND=tensorflow before Keras is imported."
    )


class Noise(keras.layers.Layer):
    """A layer whose every call draws new noise, which `seed` and the number of the call fix.

    Args:
        seed: an integer that fixes the sequence of draws, or None for a random one.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.drawn = None  # an iterator over a step's noise, where a loop draws it ahead

    def next_key(self):
        """The key of the next draw, for the functions of `vae_tf.threefry`."""
        return ops.unstack(ops.cast(self.seed_generator.next(), "uint32"))

    def next_keys(self, num):
        """The keys of the next `num` draws, of shape `(num, 1, 1)`; they are not used up."""
        seed, number = ops.unstack(ops.cast(self.seed_generator.state, "uint32"))
        return seed, ops.reshape(number + ops.cast(ops.arange(num), "uint32"), (num, 1, 1))

    def draw(self, law, like):
        """Draw from `law`, a function of `vae_tf.threefry`, in the shape and type of `like`."""
        key = self.next_key()
        if self.drawn is None:
            drawn = law(key, ops.shape(like)[0], math.prod(like.shape[1:]))
        elif (drawn := next(self.drawn, None)) is None:
            raise RuntimeError(
                f"The layer '{self.name}' was called twice in a train step, and its noise drawn ahead "
                "for one call. Let `draw_ahead` of the model return {}: each call then draws its own."
            )
        return ops.cast(ops.reshape(drawn, ops.shape(like)), like.dtype)

    def save_own_variables(self, store):
        """Keep the state of the noise, which Keras leaves out, so that training can go on."""
        store["seed_state"] = self.seed_generator.state.value.numpy()

    def load_own_variables(self, store):
        if "seed_state" in store:
            self.seed_generator.state.assign(np.asarray(store["seed_state"]))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="vae_tf")
class Sampling(Noise):
    """The reparameterisation trick: z = μ + exp(½ log σ²)·ε, with ε ~ N(0, I).

    The noise does not depend on the inputs, so the gradient passes to both of them:
    ∂z/∂μ = 1 and ∂z/∂(log σ²) = ½ exp(½ log σ²)·ε.

    Input: `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`.
    Output: `z`, of the same shape. Arguments as for `Noise`.

    Example:
        >>> z = Sampling(seed=0)((ops.zeros((2, 10)), ops.zeros((2, 10))))
        >>> tuple(z.shape)
        (2, 10)

    Source: Kingma & Welling (2014), section 2.4.
    """

    def call(self, inputs):
        z_mean, z_log_var = inputs
        epsilon = self.draw(threefry.normal, z_mean)
        return z_mean + ops.exp(0.5 * z_log_var) * epsilon


@keras.saving.register_keras_serializable(package="vae_tf")
class Binarize(Noise):
    """Binary images x ~ Bernoulli(grey values), drawn anew at each call.

    Input: floats in [0, 1]. Output: 0.0 or 1.0, in the same shape. Arguments as for `Noise`.

    Source: Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks".
    """

    def call(self, x):
        return ops.cast(self.draw(threefry.uniform, x) <= x, x.dtype)
