"""What a model is: terms in nats for each image, an objective, `encode`, `decode`, and what else it can do.

An author writes methods on tensors in `keras.ops`; nothing of how a model is trained is seen here.
"""

import functools
import warnings

import keras
import numpy as np
from keras import ops

from vae_tf import data, layers, random
from vae_tf.engine.trainer import Trainer
from vae_tf.errors import GreyValuesWarning, InvalidTypeError, check_positive_int, invalid
from vae_tf.likelihoods import get_likelihood
from vae_tf.models.arrays import concatenated, first, from_arrays, is_tensor
from vae_tf.models.keras_calls import KerasCalls, dtype_policy

_OUTSIDE = {
    "binary": "The images have grey values: their cross-entropy is a loss, and no log-likelihood. "
    "likelihood='continuous_bernoulli' has one; VAE(binarize=True) trains on binary draws of them.",
    "bytes": "The images have values between bytes (k/255): what is shown is no log-likelihood. Give "
    "bytes (uint8); likelihood='continuous_bernoulli' has one of any values in [0, 1].",
}


class Model(KerasCalls, Trainer):
    """A model of images x with a code z. A subclass gives what its paper says, on tensors:

    - `build(input_shape)`: its networks; it ends with `super().build(input_shape)`;
    - `terms(x, *condition, training)`, `encode(x, *condition)`, `decode(z, *condition)`; `objective`
      where that is not the mean of the term `loss`;
    - where it has them `posterior`, `prior`, `sample_prior`, `log_weights`. They are None here: what uses
      a model asks for them, and never which class it is;
    - `condition`, a `Condition`, where it has one. The other methods are then given it.

    Noise comes from `self.noise`, as often as the mathematics needs it, or from layers such as
    `vae_tf.Sampling`. From outside these methods take arrays, and give arrays.

    Args:
        likelihood: p(x|z), by name or as a layer of `vae_tf.likelihoods`.
        seed: one integer that fixes the initial weights, the noise and the order of the data; None
            leaves them to `keras.utils.set_random_seed`.
    """

    condition = None
    _building = False
    posterior = None  # posterior(x, *condition): q(z|x), a distribution
    prior = None  # prior(*condition): p(z), a distribution
    sample_prior = None  # sample_prior(num, *condition): codes for `decode`, (num, *latent_shape)
    log_weights = (
        None  # log_weights(x, num_samples, *condition): log p(x, z_k) − log q(z_k|x), (K, batch)
    )

    def __init__(self, likelihood="bernoulli", seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        *self.weight_seeds, _, self.order_seed, _, noise = random.child_seeds(self.seed, 6)
        self.noise = layers.Noise(noise, name="noise")
        self.likelihood = get_likelihood(likelihood)
        self._given_likelihood = id(self.likelihood)

    def __setattr__(self, name, value):
        if name == "likelihood" and name in vars(self):  # Keras would save the one before, too
            self._tracker.untrack(vars(self)[name])
        super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        for name in ("encode", "decode", "posterior", "log_weights"):
            if callable(own.get(name)):
                setattr(cls, name, from_arrays(own[name]))
        if "build" in own:
            cls.build = _with_seed(own["build"])
        if "call" in own and "terms" not in own and cls.terms is not Model.terms:
            warnings.warn(
                f"{cls.__name__} overrides `call`, which training does not use: it goes through "
                "`terms`. Override `terms`, `encode` or `decode`.",
                stacklevel=2,
            )

    # What a model gives.

    def build(self, input_shape):
        """Note the shape of the images. A subclass makes its networks first."""
        self.image_shape = tuple(input_shape[1:])
        if not self.likelihood.built:
            self.likelihood.build((None, *self.likelihood.parameter_shape(self.image_shape)))
        self.built = True

    def terms(self, x, *condition, training=False):
        """By name what the model minimises or reports, in nats for each image; `loss` among them.

        Args:
            x: float images, as the likelihood has them, `(batch, *image_shape)`.

        Returns:
            A dictionary of tensors `(batch,)`, or `(batch, ...)` for what is recorded and not shown.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `terms(x, training=False)`.")

    def objective(self, means):
        """What a step descends: a scalar of the terms' means over the batch."""
        return means["loss"]

    def settings(self):
        """By name the numbers that the objective depends on at this step, to be recorded."""
        return {}

    def observed(self, x):
        """Images as the likelihood has them: a model that draws binary ones does so here."""
        return x

    def encode(self, x, *condition):
        """The code of images; or a tuple whose first element is the code."""
        raise NotImplementedError(f"{type(self).__name__} has no `encode(x)`.")

    def decode(self, z, *condition):
        """The parameters of p(x|z), of which `likelihood.distribution` makes a distribution."""
        raise NotImplementedError(f"{type(self).__name__} has no `decode(z)`.")

    def reconstruction(self, x, *condition):
        """E[x|z] at the code of x."""
        code = first(self.encode(x, *condition))
        return self.likelihood.mean(self.decode(code, *condition))

    def call(self, inputs):
        """The parameters of p(x|z) at the code of x; for a model with a condition of `(x, condition)`."""
        x, *condition = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        code = self._code_to_decode(self.encode(self.to_floats(x), *condition))
        return self.decode(code, *condition)

    def _code_to_decode(self, code):
        """What `call` decodes of that which `encode` gives."""
        return first(code)

    @property
    def latent_shape(self):
        """The shape of a code, without the batch."""
        return (self.latent_dim,)

    # What a user calls: arrays to arrays.

    def code(self, x, condition=None, batch_size=1000):
        """The codes of images, NumPy `(N, *latent_shape)`."""
        return self._in_batches(lambda *part: first(self.encode(*part)), x, condition, batch_size)

    def reconstruct(self, x, condition=None, batch_size=1000):
        """Images `(N, ...)` to their reconstructions in [0, 1], without noise, as NumPy."""
        return self._in_batches(self.reconstruction, x, condition, batch_size)

    def generate(self, num=1, seed=None, condition=None):
        """Decode `num` draws from the prior to images in [0, 1], as NumPy `(num, *image_shape)`.

        Args:
            num: how many images.
            seed: a non-negative integer; the same seed gives the same images, here and from the
                exported model. None draws one.
            condition: for a model that has one: one for all images, or one for each.

        Raises:
            TypeError: the model has no prior to draw from.
        """
        self.needs("sample_prior", "generate")
        self.assert_built("generate")
        num = check_positive_int("num", num)
        seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        rows = self.condition_rows(condition, num)
        with layers.drawing(layers.PerSeed(random.row_seeds(seed, num))):
            z = self.sample_prior(num, *map(ops.convert_to_tensor, rows))
        return self.decode_images(z, *rows)

    def interpolate(self, start, end, num=8, condition=None):
        """Images along the straight line between the codes of two images.

        Args:
            start, end: one image each, of shape `image_shape`.
            num: how many images, both ends included.
            condition: for a model that has one: one for all images.

        Returns:
            NumPy, `(num, *image_shape)`, in [0, 1].
        """
        self.assert_built("interpolate")
        num = check_positive_int("num", num, minimum=2)
        one, other = self.code(np.stack([start, end]), *self.condition_rows(condition, 2))
        weights = np.linspace(0.0, 1.0, num).reshape(-1, *(1 for _ in one.shape))
        codes = (1 - weights) * one + weights * other
        return self.decode_images(codes, *self.condition_rows(condition, num))

    def decode_images(self, z, condition=None, batch_size=1000):
        """The means of p(x|z) for codes `(N, *latent_shape)`: NumPy `(N, *image_shape)`."""
        z = ops.convert_to_numpy(z)
        arrays = z.astype("float32"), *self.condition_rows(condition, len(z))

        def images(z, *condition):
            return self.likelihood.mean(self.decode(z, *condition))

        return concatenated(images, arrays, batch_size)

    def _in_batches(self, function, x, condition, batch_size):
        x = self.checked(np.asarray(x))
        rows = self.condition_rows(condition, len(x))
        return concatenated(lambda x, *c: function(self.to_floats(x), *c), (x, *rows), batch_size)

    def condition_rows(self, condition, num):
        """`num` rows of the condition, in a tuple; nothing for a model without one."""
        if self.condition is not None:
            return (self.condition.rows(condition, num),)
        if condition is not None:
            name = type(self).__name__
            expected = f"None: a {name} has no condition"
            raise invalid("condition", expected, repr(condition), kind=InvalidTypeError)
        return ()

    # Checks.

    def needs(self, capability, method):
        """Raise unless the model has a method, which is needed for another."""
        if getattr(self, capability) is None:
            raise invalid(
                "model",
                f"a model with `{capability}`, for `{method}`",
                f"a {type(self).__name__}, which has none",
                kind=InvalidTypeError,
            )

    def assert_built(self, method):
        if not self.built:
            raise ValueError(
                f"This {type(self).__name__} has not seen an image yet, so `{method}` does not know "
                "their shape. Call `fit` first, or `build((None, height, width, channels))`."
            )

    @property
    def value_range(self):
        """The least and the largest value of a pixel that the model takes."""
        return self.likelihood.support.low, self.likelihood.support.high

    def checked(self, x, argument="x"):
        """Arrays are checked against the likelihood and the model's shape; tensors pass."""
        if is_tensor(x):
            return x
        x = data.check_images(x, argument, self.value_range)
        if self.built and x.shape[1:] != self.image_shape:
            raise invalid(argument, f"images of shape {self.image_shape}", f"shape {x.shape[1:]}")
        return x

    def check_support(self, x):
        """Warn where images can be trained on, but are not what the likelihood is of."""
        with layers.drawing(layers.PerImage(0, np.arange(len(x)))):
            seen = self.observed(self.to_floats(ops.convert_to_tensor(x)))
        if not self.likelihood.support.contains(ops.convert_to_numpy(seen)):
            warnings.warn(
                _OUTSIDE[self.likelihood.support.kind],
                GreyValuesWarning,
                stacklevel=3,  # the caller of `fit`
            )

    def to_floats(self, x):
        """Images as float32; bytes come to [0, 1]. Images are held as they came until here."""
        dtype = keras.backend.standardize_dtype(x.dtype)
        floats = x if dtype == "float32" else ops.cast(x, "float32")
        return floats * (1 / 255) if dtype == "uint8" else floats

    def get_config(self):
        config = {**super().get_config(), "seed": self.seed}
        if id(self.likelihood) == self._given_likelihood:  # and not one that a subclass sets
            config["likelihood"] = keras.saving.serialize_keras_object(self.likelihood)
        return config


def _with_seed(build):
    """Let the model's seed and dtype fix those of the layers that it makes, where they have none."""

    @functools.wraps(build)
    def wrapper(self, input_shape):
        if self._building:  # a subclass's `build` has called this one
            return build(self, input_shape)
        self._building = True
        try:
            with random.default_seeds(self.weight_seeds[-1]), dtype_policy(self.dtype_policy):
                return build(self, input_shape)
        finally:
            self._building = False

    return wrapper
