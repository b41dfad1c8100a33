"""What a model is: terms in nats for each image, an objective, `encode`, `decode`, and what else it can do.

An author writes methods on tensors in `keras.ops`; nothing of how a model is trained is seen here.
"""

import functools
import warnings

import keras
import numpy as np
from keras import ops

from vae_tf import data, layers, random
from vae_tf.engine import room
from vae_tf.engine.trainer import Trainer
from vae_tf.errors import GreyValuesWarning, InvalidTypeError, check_positive_int, invalid, warn
from vae_tf.likelihoods import get_likelihood
from vae_tf.models.array_calls import ArrayCalls
from vae_tf.models.arrays import check_codes, first, from_arrays, is_tensor, rows_of, shape_hint
from vae_tf.models.keras_calls import KerasCalls, dtype_policy

_OUTSIDE = {
    "binary": "The images have grey values: their cross-entropy is a loss, and no log-likelihood. "
    "likelihood='continuous_bernoulli' has one; VAE(binarize=True) trains on binary draws of them.",
    "binary, in colour": "The images are in colour: their cross-entropy is a loss, and no log-likelihood. "
    "likelihood='gaussian', 'discretized_logistic' or 'continuous_bernoulli' has one.",
    "bytes": "The images have values between bytes (k/255): what is shown is no log-likelihood. Give "
    "bytes (uint8); likelihood='continuous_bernoulli' has one of any values in [0, 1].",
}


class Model(ArrayCalls, KerasCalls, Trainer):
    """A model of images x with a code z. A subclass gives what its paper says, on tensors:

    - `build(input_shape)`: its networks; it ends with `super().build(input_shape)`;
    - `terms(x, *condition, training)`, `encode(x, *condition)`, `decode(z, *condition)`; `objective`
      where that is not the mean of the term `loss`;
    - where it has them `posterior`, `prior`, `sample_prior`, `prior_to_train`, `log_weights`. They are None here: what uses
      a model asks for them, and never which class it is;
    - `condition`, a `Condition`, where it has one. The other methods are then given it.

    Noise comes from `self.noise`, as often as the mathematics needs it, or from layers such as
    `vae_tf.Sampling`. From outside these methods take arrays, and give arrays.

    Args:
        likelihood: p(x|z), by name or as a layer of `vae_tf.likelihoods`.
        seed: one integer that fixes the initial weights, the noise and the order of the data; None
            leaves them to `keras.utils.set_random_seed`.
        binarize: draw x ~ Bernoulli(grey values) anew whenever an image is trained on, and once, with
            fixed noise, where it is evaluated: the field's dynamic binarisation.
    """

    unit = "nats"  # of the loss
    condition = None
    _building = False
    begin = None  # begin(x): called by `fit` before the first step, with training images as floats in NumPy
    posterior = None  # posterior(x, *condition): q(z|x), a distribution
    prior = None  # prior(*condition): p(z), a distribution
    sample_prior = None  # sample_prior(num, *condition): codes for `decode`, (num, *latent_shape)
    codes = None  # codes(x): the numbers of discrete codes, each below `num_codes`, (batch, height, width)
    prior_to_train = None  # prior_to_train(**options): a model of p(z), trained after this one, which then has it
    log_weights = (
        None  # log_weights(x, num_samples, *condition): log p(x, z_k) − log q(z_k|x), (K, batch)
    )

    def __init__(self, likelihood="bernoulli", seed=None, binarize=False, **kwargs):
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        *self.weight_seeds, _, self.order_seed, pixels, noise = random.child_seeds(self.seed, 6)
        self.noise = layers.Noise(noise, name="noise")
        self.likelihood = get_likelihood(likelihood)
        self._given_likelihood = id(self.likelihood)
        self.binarize = layers.Binarize(seed=pixels, name="binarize") if binarize else None
        if binarize and self.likelihood.support.kind != "binary":
            raise invalid("binarize", "False: its likelihood is not of binary pixels", binarize)

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

        Where a model has `log_weights`, `loss` is −ELBO; or it is the negative of another bound of
        log p(x), and the term `elbo_loss` is −ELBO.

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
        """Images as the likelihood has them."""
        return x if self.binarize is None else self.binarize(x)

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

    def condition_rows(self, condition, num):
        """`num` rows of the condition, in a tuple; nothing for a model without one."""
        if self.condition is not None:
            return (self.condition.rows(condition, num),)
        if condition is not None:
            expected = f"None: a {type(self).__name__} has no condition"
            given = np.shape(condition)
            received = f"one of shape {given}" if given else repr(condition)
            raise invalid("condition", expected, received, kind=InvalidTypeError)
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
        known = self.image_shape if self.built else None
        x = data.check_images(x, argument, self.value_range, known)
        if self.built and x.shape[1:] != self.image_shape:
            expected = f"images of shape {rows_of(self.image_shape)}, as the model was built to"
            hint = shape_hint(x.shape, self.image_shape, argument)
            raise invalid(argument, expected, f"shape {x.shape}", hint)
        return x

    def checked_codes(self, z):
        """Codes from outside as float32 `(N, *latent_shape)`; or what is wrong with them."""
        return check_codes(z, getattr(self, "latent_shape", None))

    def check_support(self, x):
        """Warn where images can be trained on, but are not what the likelihood is of."""
        x = data.some(x)
        with layers.drawing(layers.PerImage(0, np.arange(len(x)))):
            seen = self.observed(self.to_floats(ops.convert_to_tensor(x)))
        if not self.likelihood.support.contains(ops.convert_to_numpy(seen)):
            kind = self.likelihood.support.kind
            colour = kind == "binary" and x.ndim == 4 and x.shape[-1] >= 3
            warn(_OUTSIDE[f"{kind}, in colour" if colour else kind], GreyValuesWarning)

    def to_floats(self, x):
        """Images as float32; bytes come to [0, 1]. Images are held as they came until here."""
        dtype = keras.backend.standardize_dtype(x.dtype)
        floats = x if dtype == "float32" else ops.cast(x, "float32")
        return floats * (1 / 255) if dtype == "uint8" else floats

    def get_config(self):
        config = {**super().get_config(), "seed": self.seed}
        if self.binarize is not None:
            config["binarize"] = True
        if id(self.likelihood) == self._given_likelihood:  # and not one that a subclass sets
            config["likelihood"] = keras.saving.serialize_keras_object(self.likelihood)
        return config


def _with_seed(build):
    """Let the model's seed and dtype fix those of the layers that it makes, where they have none."""

    @functools.wraps(build)
    def wrapper(self, input_shape):
        if self._building:  # a subclass's `build` has called this one
            return build(self, input_shape)
        if self.built and self.image_shape == tuple(input_shape[1:]):
            return None
        self._building = True
        try:
            with (
                random.default_seeds(self.weight_seeds[-1]),
                dtype_policy(self.dtype_policy),
                room.for_weights(input_shape[1:], trained=self.compiled),
            ):
                return build(self, input_shape)
        finally:
            self._building = False

    return wrapper
