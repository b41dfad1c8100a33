"""The variational autoencoder of Kingma & Welling (2014) as a `keras.Model`."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf import data
from vae_tf.errors import InvalidTypeError, check_positive_int, invalid
from vae_tf.layers import Sampling
from vae_tf.likelihoods import Bernoulli
from vae_tf.models import execution
from vae_tf.networks import dense_decoder, dense_encoder
from vae_tf.objectives import gaussian_kl
from vae_tf.seeding import row_seeds, seeded_normal

EVALUATION_SEED = 20131220  # the day the paper appeared: `evaluate` draws the same noise each time


@keras.saving.register_keras_serializable(package="vae_tf")
class VAE(keras.Model):
    """A variational autoencoder: q(z|x) = N(μ(x), diag σ²(x)), p(z) = N(0, I), p(x|z) Bernoulli.

    Training minimises the negative evidence lower bound, in nats per image,

        −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z)) = reconstruction_loss + kl_loss = loss.

    Images are arrays `(N, H, W)`, `(N, H, W, C)` or `(N, D)`, or batches of a `tf.data` set of `x`,
    `(x,)` or `(x, y)`: bytes (uint8, 0 to 255), booleans, or floats in [0, 1]. Labels are not used.
    `model(x)` is one stochastic pass and gives logits; `predict` and `reconstruct` give images.

    Args:
        latent_dim: the size of the code z.
        hidden_units: widths of the encoder's hidden layers, which the decoder mirrors; `()` gives a
            linear model.
        activation: of the hidden layers, anything that Keras takes.
        seed: one integer that fixes the initial weights, the noise and the order of the data;
            None leaves them to `keras.utils.set_random_seed`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> vae = VAE(latent_dim=2, hidden_units=(32,), seed=0)
        >>> vae.compile()
        >>> history = vae.fit(np.zeros((100, 8, 8), "uint8"), verbose=0)
        >>> vae.generate(num=4, seed=0).shape
        (4, 8, 8)

    Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", equation 10.
    """

    num_terms = 4  # of `step_terms`: loss, reconstruction, KL, β

    def __init__(
        self, latent_dim=10, hidden_units=(512, 384, 256), activation="relu", seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.hidden_units = check_hidden_units(hidden_units)
        self.activation = keras.activations.get(activation)
        self.seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        seeds = _spawn(self.seed, 4)
        self._encoder_seed, self._decoder_seed, noise_seed, self._order_seed = seeds
        self.likelihood = Bernoulli()
        self.sampling = Sampling(seed=noise_seed, name="sampling")
        self.beta = self.add_weight(name="beta", initializer="ones", trainable=False)
        self.kl_warmup_steps = self.add_weight(
            name="kl_warmup_steps", initializer="zeros", trainable=False
        )
        self.step_terms = None  # see `train_step`
        self.skip_executions = 0  # of the next epoch, as done before; see `Checkpoints`
        self.step_limit = tf.Variable(np.iinfo(np.int64).max, trainable=False, dtype=tf.int64)
        names = ("loss", "reconstruction_loss", "kl_loss")
        self._trackers = [keras.metrics.Mean(name=name) for name in names]

    def build(self, input_shape):
        self.image_shape = tuple(input_shape[1:])
        self.encoder = dense_encoder(
            self.image_shape,
            self.latent_dim,
            self.hidden_units,
            self.activation,
            self._encoder_seed,
        )
        self.decoder = dense_decoder(
            self.latent_dim,
            self.image_shape,
            self.hidden_units[::-1],
            self.activation,
            self._decoder_seed,
        )
        self.built = True

    # The model's three parts, and the pass through them.

    def encode(self, x):
        """q(z|x): `(z_mean, z_log_var)`, each of shape `(batch, latent_dim)`."""
        return self.encoder(self.to_floats(self._checked(x)))

    def decode(self, z):
        """p(x|z): the logits, of shape `(batch, *image_shape)`, for z `(batch, latent_dim)`."""
        return self.decoder(z)

    def regularizer(self, z_mean, z_log_var):
        """KL(q(z|x) ‖ p(z)) in nats per image, of shape `(batch,)`."""
        return gaussian_kl(z_mean, z_log_var)

    def call(self, x):
        """One draw of z from q(z|x), decoded to logits; the mean KL enters by `add_loss`."""
        z_mean, z_log_var = self.encode(x)
        self.add_loss(ops.mean(self.regularizer(z_mean, z_log_var)))
        return self.decode(self.sampling((z_mean, z_log_var)))

    def to_floats(self, x):
        """Bytes to floats in [0, 1], inside the compiled step: images are held as they came."""
        scale = 1 / 255 if "uint8" in str(x.dtype) else 1.0
        return ops.cast(x, self.compute_dtype) * scale

    def _terms(self, x):
        """The batch's means: −ELBO, reconstruction and KL, from one draw of z an image."""
        logits = self(x)
        reconstruction = -ops.mean(self.likelihood.log_prob(logits, self.to_floats(x)))
        kl = sum(self.losses)
        return reconstruction + kl, reconstruction, kl

    # Training and evaluation.

    @property
    def metrics(self):
        return self._trackers

    def train_step(self, batch):
        """One gradient step on a batch, down reconstruction + β·KL.

        The step's own terms are left in `self.step_terms`; what is returned is, as Keras has it,
        their running mean over the epoch. `loss` is −ELBO, whatever β a warm-up has reached.
        """
        x = self.step_inputs(batch)
        step = ops.cast(self.optimizer.iterations, "float32") + 1
        self.beta.assign(ops.minimum(1.0, step / ops.maximum(1.0, self.kl_warmup_steps)))
        with tf.GradientTape() as tape:
            loss, reconstruction, kl = self._terms(x)
            objective = reconstruction + self.beta * kl
        gradients = execution.all_at_once(tape.gradient(objective, self.trainable_weights))
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.step_terms = (loss, reconstruction, kl, ops.convert_to_tensor(self.beta))
        return self._track(x, (loss, reconstruction, kl))

    def test_step(self, batch):
        """The batch's −ELBO and its terms."""
        x = self.step_inputs(batch)
        return self._track(x, self._terms(x))

    def predict_step(self, batch):
        """Reconstructed images in [0, 1]: the decoder's mean at z = z_mean, without noise."""
        z_mean, _ = self.encode(self.step_inputs(batch))
        return self.likelihood.mean(self.decode(z_mean))

    def _track(self, x, terms):
        for tracker, term in zip(self._trackers, terms, strict=True):
            tracker.update_state(term, sample_weight=ops.shape(x)[0])
        return {tracker.name: tracker.result() for tracker in self._trackers}

    def step_inputs(self, batch):
        """What a step uses of a batch of `x`, `(x,)` or `(x, y)`: here x alone."""
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if sample_weight is not None:
            raise _refused("sample_weight", "a third element of the data")
        return x

    @property
    def _in_one_loop(self):
        return self.jit_compile and not self.run_eagerly and not tf.distribute.has_strategy()

    def make_train_function(self, force=False):
        if not self._in_one_loop:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = execution.make_loop_function(self)
        return None

    def compile(
        self,
        optimizer=None,
        steps_per_execution="auto",
        run_eagerly=False,
        jit_compile="auto",
        **kwargs,
    ):
        """As `keras.Model.compile`; the loss is the model's own.

        Args:
            optimizer: by default Adam at 1e-3, as in the original program.
            steps_per_execution: how many steps run in one compiled loop, between which callbacks
                are called. "auto" takes up to 100 of an epoch's steps; 1 calls them at every step.
            run_eagerly: as in Keras.
            jit_compile: "auto" compiles with XLA wherever there is one device, the CPU too.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.pop(name, None) is not None:
                raise _refused(name, f"compile({name}=...)")
        if steps_per_execution != "auto":
            check_positive_int("steps_per_execution", steps_per_execution)
        self._auto_steps = steps_per_execution == "auto"
        if jit_compile == "auto":
            jit_compile = not run_eagerly and not tf.distribute.has_strategy()
        super().compile(
            optimizer=keras.optimizers.Adam(1e-3) if optimizer is None else optimizer,
            steps_per_execution=1 if self._auto_steps else steps_per_execution,
            run_eagerly=run_eagerly,
            jit_compile=jit_compile,
            **kwargs,
        )

    def fit(self, x=None, y=None, batch_size=None, steps_per_epoch=None, shuffle=True, **kwargs):
        """As `keras.Model.fit`, on arrays or on a `tf.data` set; everything is checked first.

        Args:
            x, y: images, and labels that are not used; or a `tf.data` set alone.
            batch_size: for arrays, by default 100, as in the original program.
            steps_per_epoch, shuffle, kwargs: as in Keras. `sample_weight` and `class_weight` are
                refused.
        """
        self._assert_compile_called("fit")
        x, y, kwargs = self._checked_arguments(x, y, kwargs)
        kwargs = self._restored(kwargs)
        arrays = isinstance(x, np.ndarray)
        if arrays:
            x, y, kwargs = self._split_validation(x, y, kwargs)
            batch_size = check_positive_int("batch_size", 100 if batch_size is None else batch_size)
            kwargs.setdefault("validation_batch_size", batch_size)
        steps = steps_per_epoch or _num_batches(x, batch_size)
        if self._auto_steps:
            self._set_steps_per_execution(steps, exact=steps_per_epoch is not None)
        if arrays and steps_per_epoch is None and self._in_one_loop:
            rows = (x,) if y is None else (x, np.asarray(y))
            epoch = kwargs.get("initial_epoch")
            x = self._executions(rows, batch_size, shuffle, epoch)
            y, arrays, steps_per_epoch = None, False, steps
        return super().fit(
            x, y,
            batch_size=batch_size if arrays else None,
            steps_per_epoch=steps_per_epoch,
            shuffle=shuffle and arrays,  # a data set comes in the order that it was given
            **kwargs,
        )  # fmt: skip

    def _restored(self, kwargs):
        """Let a callback such as `Checkpoints` bring back an earlier state, and begin there."""
        hooks = kwargs.get("callbacks") or ()
        for hook in hooks if isinstance(hooks, (list, tuple)) else (hooks,):
            if hasattr(hook, "restore"):
                kwargs = {**kwargs, "initial_epoch": hook.restore(self)}
        return kwargs

    def _executions(self, rows, batch_size, shuffle, epoch):
        """The data of `fit`, from `epoch` on; by default from where the last `fit` ended."""
        if epoch is None:
            epoch = int(self.optimizer.iterations) // _num_batches(rows[0], batch_size)
        steps, seed = self.steps_per_execution, self._order_seed
        return execution.executions(rows, batch_size, steps, seed, shuffle, epoch)

    def _set_steps_per_execution(self, steps, exact):
        chosen = execution.choose_steps(steps, exact)
        if chosen != self.steps_per_execution:
            self.steps_per_execution, self.train_function, self.test_function = chosen, None, None

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.evaluate`: −ELBO and its terms, one draw of z an image.

        The noise is fixed, and that of training goes on undisturbed: evaluating twice gives the
        same figure, and evaluating in the middle of training does not change it.
        """
        state = self.sampling.seed_generator.state
        before = state.value.numpy()
        state.assign(np.array([EVALUATION_SEED, 0], before.dtype))
        try:
            if kwargs.get("_use_cached_eval_dataset"):  # `fit` has checked it
                return super().evaluate(x, y, batch_size=batch_size, **kwargs)
            x, y, kwargs = self._checked_arguments(x, y, kwargs)
            return super().evaluate(x, y, batch_size=batch_size or 100, **kwargs)
        finally:
            state.assign(before)

    def predict(self, x, batch_size=None, **kwargs):
        """Reconstructed images in [0, 1], as a NumPy array of the shape of `x`."""
        x, _, kwargs = self._checked_arguments(x, None, kwargs)
        return super().predict(x, batch_size=batch_size, **kwargs)

    # Looking at what was learned.

    def reconstruct(self, x):
        """Images `(N, ...)` to their reconstructions in [0, 1], through z = z_mean, as NumPy."""
        return ops.convert_to_numpy(self.predict_step(self._checked(x)))

    def generate(self, num=1, seed=None):
        """Decode `num` draws from the prior to images in [0, 1], as NumPy `(num, *image_shape)`.

        Args:
            num: how many images.
            seed: a non-negative integer; the same seed gives the same images, here and from the
                exported model. None draws one.
        """
        self.assert_built("generate")
        num = check_positive_int("num", num)
        seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
        z = seeded_normal(row_seeds(seed, num), self.latent_dim)
        return self.decode_images(z)

    def interpolate(self, start, end, num=8):
        """Images along the straight line between the codes of two images.

        Args:
            start, end: one image each, of shape `image_shape`.
            num: how many images, both ends included.

        Returns:
            NumPy, `(num, *image_shape)`, in [0, 1].
        """
        self.assert_built("interpolate")
        num = check_positive_int("num", num, minimum=2)
        (z_start, z_end), _ = self.encode(np.stack([start, end]))
        weights = ops.reshape(ops.linspace(0.0, 1.0, num), (-1, 1))
        return self.decode_images((1 - weights) * z_start + weights * z_end)

    def decode_images(self, z, batch_size=1000):
        """The decoder's means for codes `(N, latent_dim)`: NumPy `(N, *image_shape)` in [0, 1]."""
        z = ops.convert_to_tensor(z, self.compute_dtype)
        parts = [self.decode(z[i : i + batch_size]) for i in range(0, len(z), batch_size)]
        return np.concatenate([ops.convert_to_numpy(self.likelihood.mean(part)) for part in parts])

    # Checks.

    def assert_built(self, method):
        if not self.built:
            raise ValueError(
                f"This VAE has not seen an image yet, so `{method}` does not know their shape. "
                "Call `fit` first, or `build((None, height, width, channels))`."
            )

    def _checked(self, x, argument="x"):
        """Arrays are checked against the contract and the model's shape; tensors pass."""
        if tf.is_tensor(x) or isinstance(x, keras.KerasTensor):
            return x
        x = data.check_images(x, argument)
        if self.built and x.shape[1:] != self.image_shape:
            raise invalid(argument, f"images of shape {self.image_shape}", f"shape {x.shape[1:]}")
        return x

    def _checked_arguments(self, x, y, kwargs):
        """Check and normalise the data arguments of `fit`, `evaluate` and `predict`."""
        for name in ("sample_weight", "class_weight"):
            if kwargs.pop(name, None) is not None:
                raise _refused(name, f"{name}=...")
        x = self._checked_source(x, "x")
        if y is not None and isinstance(x, np.ndarray) and len(y) != len(x):
            raise invalid("y", f"one label for each of {len(x)} images", f"{len(y)} labels")
        if kwargs.get("validation_data") is not None:
            held, labels, weight = keras.utils.unpack_x_y_sample_weight(kwargs["validation_data"])
            if weight is not None:
                raise _refused("sample_weight", "a third element of validation_data")
            held = self._checked_source(held, "validation_data")
            kwargs = {**kwargs, "validation_data": held if labels is None else (held, labels)}
        return x, y, kwargs

    def _checked_source(self, x, argument):
        """Check an array whole, a data set by its first batch; build the model to its shape."""
        if isinstance(x, tf.data.Dataset):
            first = next(iter(x.take(1)), None)
        elif isinstance(x, keras.utils.PyDataset):
            first = x[0] if len(x) else None
        elif hasattr(x, "__next__") or isinstance(x, dict) or x is None:
            raise invalid(
                argument,
                "an array or a tf.data.Dataset",
                f"{type(x).__name__}",
                "A generator becomes one by tf.data.Dataset.from_generator.",
                kind=InvalidTypeError,
            )
        else:
            x = first = self._checked(np.asarray(x), argument)
        if first is None:
            raise invalid(argument, "at least one batch", "an empty data set")
        if x is not first:
            first = self._checked(np.asarray(self.step_inputs(first)), f"{argument} (first batch)")
        if not self.built:
            self.build((None, *first.shape[1:]))
        return x

    @staticmethod
    def _split_validation(x, y, kwargs):
        """Hold out the last part of the arrays, as Keras does."""
        split = kwargs.pop("validation_split", 0.0) or 0.0
        if not split or kwargs.get("validation_data") is not None:
            return x, y, kwargs
        at = int(len(x) * (1 - split))
        if not 0 < at < len(x):
            raise invalid("validation_split", "a fraction that leaves images on both sides", split)
        held = x[at:] if y is None else (x[at:], y[at:])
        return x[:at], None if y is None else y[:at], {**kwargs, "validation_data": held}

    # Saving.

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
        }

    def get_compile_config(self):
        config = super().get_compile_config() or {}
        keep = ("optimizer", "run_eagerly", "jit_compile")
        steps = "auto" if getattr(self, "_auto_steps", True) else self.steps_per_execution
        return {**{k: config[k] for k in keep if k in config}, "steps_per_execution": steps}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


def check_hidden_units(hidden_units):
    """Return the widths as a tuple of positive ints, or say what is wrong with them."""
    if isinstance(hidden_units, (int, np.integer)):
        hidden_units = (hidden_units,)
    if isinstance(hidden_units, str) or not hasattr(hidden_units, "__iter__"):
        raise invalid(
            "hidden_units",
            "a sequence of positive integers, such as (512, 384, 256)",
            f"hidden_units={hidden_units!r}",
            "() gives a linear model.",
            kind=InvalidTypeError,
        )
    return tuple(check_positive_int("hidden_units", units) for units in hidden_units)


def _num_batches(x, batch_size):
    """How many batches an epoch has; None where that is unknown or without end."""
    if isinstance(x, np.ndarray):
        return -(-len(x) // batch_size)
    count = int(x.cardinality()) if isinstance(x, tf.data.Dataset) else x.num_batches
    return count if count and count > 0 else None


def _spawn(seed, num):
    return (
        [None] * num
        if seed is None
        else [int(s) for s in np.random.SeedSequence(seed).generate_state(num)]
    )


def _refused(argument, received):
    return invalid(
        argument,
        "nothing: the loss is the model's own, the same for each image",
        received,
        "To weigh images, repeat or leave out rows of the data."
        if "weight" in argument
        else "Subclass VAE and override `regularizer` to change the loss.",
    )
