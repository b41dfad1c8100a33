"""Layers with randomness in them, and where they take their noise from."""

import collections
import contextlib
import contextvars
import math

import keras
import numpy as np
from keras import ops

from vae_tf import random
from vae_tf.distributions.numerics import floats
from vae_tf.errors import check_positive_int

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"vae_tf trains and exports with TensorFlow, and Keras is set to '{keras.backend.backend()}'. "
        "Set KERAS_BACKEND=tensorflow before Keras is imported."
    )


class Source:
    """Where noise layers take their draws from: the key of a draw, and the numbers of its rows.

    Each draw within a source has a number of its own, so that no two are alike.
    """

    first_sample, dtype = 0, "float32"

    def __init__(self):
        self._draws = collections.Counter()

    def number(self, layer=None):
        """The number of this draw: among those of `layer`, or among all."""
        self._draws[id(layer)] += 1
        return self._draws[id(layer)] - 1

    def draw(self, layer, law, shape, num_samples=None):
        """Numbers of `law`, a function of `vae_tf.random`: `shape`, or `(num_samples, *shape)`."""
        return self.numbers(law, self.key(layer), shape, num_samples)

    def numbers(self, law, key, shape, num_samples=None, leading=()):
        """The same for a given key, whose words have the axes `leading`, and one for each axis of the result."""
        rows, dim = self.rows(shape), math.prod(shape[1:])
        samples = self.first_sample
        if num_samples is not None:  # a key for each sample, none of which is that of a later step
            key = random.fold(key, 0, 1)
            samples = ops.reshape(ops.arange(num_samples) + samples, (-1, 1, 1))
            shape = (num_samples, *shape)
        key = (key[0], key[1] + ops.cast(samples, "uint32"))
        return ops.cast(ops.reshape(law(key, rows, dim, self.dtype), (*leading, *shape)), "float32")

    def rows(self, shape):
        return shape[0]


class OwnSequence(Source):
    """The layer's own sequence: its seed and the number of its call fix a draw."""

    def key(self, layer):
        return ops.unstack(ops.cast(layer.seed_generator.next(), "uint32"))


class PerSeed(Source):
    """Row i depends on `seeds[i]` alone, in any batch and any process: for served models.

    Args:
        seeds: int64, of shape `(batch,)`. The first draw is that of `random.seeded_normal`.
    """

    dtype = "float64"  # since the last bit of TensorFlow's sine depends on the place in the batch

    def __init__(self, seeds):
        super().__init__()
        self._key = random.key_of(ops.expand_dims(ops.convert_to_tensor(seeds, "int64"), -1))

    def key(self, layer):
        number = self.number()
        return random.fold(self._key, number) if number else self._key

    def rows(self, shape):
        return 1


class PerImage(Source):
    """Row i is image `numbers[i]` of a data set, however the set is cut into batches: to evaluate.

    Args:
        seed: a non-negative integer below 2⁶³, or a tensor.
        numbers: of the images, of shape `(batch,)`.
        first_sample: the number of the first of `num_samples` draws.
    """

    def __init__(self, seed, numbers, first_sample=0):
        super().__init__()
        self._key, self._numbers, self.first_sample = random.key_of(seed), numbers, first_sample

    def key(self, layer):
        return random.fold(self._key, self.number())

    def rows(self, shape):
        return self._numbers


_source = contextvars.ContextVar("source", default=None)


@contextlib.contextmanager
def drawing(source):
    """Within the block every noise layer draws from `source`, and leaves its own sequence alone."""
    token = _source.set(source)
    try:
        yield source
    finally:
        _source.reset(token)


@keras.saving.register_keras_serializable(package="vae_tf")
class Noise(keras.layers.Layer):
    """Random numbers for a model, as often as its mathematics needs them.

    Called on its own, a layer goes through a sequence that `seed` fixes. In training the seed, the
    number of the step, of the draw in it, and of the row in the batch fix each number.

    Args:
        seed: a non-negative integer that fixes the sequence; None draws one.

    Example:
        >>> noise = Noise(seed=0)
        >>> tuple(noise.normal((3, 2)).shape), tuple(noise.normal((3, 2), num_samples=5).shape)
        ((3, 2), (5, 3, 2))
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**{"autocast": False} | kwargs)
        self.seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        word = seed if seed is None or seed < 2**32 else random.child_seeds(seed, 1)[0]
        self.seed_generator = keras.random.SeedGenerator(word)
        self.built = True

    def normal(self, like, num_samples=None):
        """Standard normal numbers, float32.

        Args:
            like: a tensor or a shape `(batch, ...)`, whose rows are the images of the batch.
            num_samples: how many draws for each row; then they are `(num_samples, batch, ...)`.
        """
        return self._draw(random.normal, like, num_samples)

    def uniform(self, like, num_samples=None):
        """Numbers between 0 and 1, never 0, float32; arguments as for `normal`."""
        return self._draw(random.uniform, like, num_samples)

    def _draw(self, law, like, num_samples):
        shape = tuple(like) if isinstance(like, (tuple, list)) else tuple(ops.shape(like))
        source = _source.get() or OwnSequence()
        return source.draw(self, law, shape, num_samples)

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
    Output: `z`, of the same shape, in float32 at least. Arguments as for `Noise`.

    Example:
        >>> z = Sampling(seed=0)((ops.zeros((2, 10)), ops.zeros((2, 10))))
        >>> tuple(z.shape)
        (2, 10)

    Source: Kingma & Welling (2014), section 2.4.
    """

    def call(self, inputs):
        z_mean, z_log_var = floats(*inputs)
        epsilon = ops.cast(self.normal(z_mean), z_mean.dtype)
        return z_mean + ops.exp(0.5 * z_log_var) * epsilon


@keras.saving.register_keras_serializable(package="vae_tf")
class Binarize(Noise):
    """Binary images x ~ Bernoulli(grey values), drawn anew at each call.

    Input: floats in [0, 1]. Output: 0.0 or 1.0, in the same shape. Arguments as for `Noise`.

    Source: Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks".
    """

    def call(self, x):
        (x,) = floats(x)
        return ops.cast(ops.cast(self.uniform(x), x.dtype) <= x, self.compute_dtype)
