"""What every model of images shares with Keras: `compile`, `fit`, `evaluate`, `predict`, and checks.

A model adds its mathematics: `build`, `call`, `train_step`, `test_step`, `predict_step`.
"""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf import data
from vae_tf.errors import InvalidTypeError, check_positive_int, invalid
from vae_tf.models import execution

EVALUATION_SEED = 20131220  # of `evaluate`'s noise: the day on which the VAE's paper appeared


class ImageModel(keras.Model):
    """A `keras.Model` of images, with its loss inside and many steps in one compiled loop.

    A subclass's `train_step` leaves the step's own terms in `self.step_terms`, a dictionary with
    the keys and sizes of `term_sizes`; callbacks find them there as arrays `(steps, size)`, or
    `(steps,)` where the size is 1, of the steps since they were last called.
    """

    tracked = ("loss",)  # the terms whose running means Keras shows

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.step_terms = None
        self.measured = True  # whether this step's gradient norm is to be taken
        self.skip_executions = 0  # of the next epoch, as done before; see `Checkpoints`
        self.step_limit = tf.Variable(np.iinfo(np.int64).max, trainable=False, dtype=tf.int64)
        self._trackers = [keras.metrics.Mean(name=name) for name in self.tracked]
        self._order_seed = None

    @property
    def steps_made(self):
        """How many steps the optimizer has made, as an int."""
        return int(tf.convert_to_tensor(self.optimizer.iterations.value))

    @property
    def term_sizes(self):
        """The names of a step's terms, and how many numbers each is."""
        return dict.fromkeys(self.tracked, 1)

    @property
    def metrics(self):
        return self._trackers

    @property
    def value_range(self):
        """The least and the largest value of a pixel that the model takes."""
        return 0.0, 1.0

    @property
    def noise_layers(self):
        """The layers whose noise `evaluate` fixes while it runs."""
        return []

    def own_callbacks(self):
        """Callbacks that every `fit` has, before the caller's."""
        return []

    def look_at(self, images):
        """Say, before training begins, what its figures will not mean on such images."""

    def to_floats(self, x):
        """Bytes to floats in [0, 1], inside the compiled step: images are held as they came."""
        scale = 1 / 255 if "uint8" in str(x.dtype) else 1.0
        return ops.cast(x, self.compute_dtype) * scale

    def step_inputs(self, batch):
        """What a step uses of a batch of `x`, `(x,)` or `(x, y)`: here x alone."""
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if sample_weight is not None:
            raise _refused("sample_weight", "a third element of the data")
        return x

    def norm_if_measured(self, gradients):
        """The gradients' joint norm in the steps that are measured, NaN in others: it takes a sixth
        of a step. Each gradient has a condition of its own, lest all be kept until the last is there.
        """

        def square(gradient):
            return 2 * tf.cast(tf.nn.l2_loss(gradient), tf.float32)

        if self.measured is True:
            return tf.sqrt(sum(map(square, gradients)))
        nan = tf.constant(np.nan)
        squares = [tf.cond(self.measured, lambda g=g: square(g), lambda: nan) for g in gradients]
        return tf.sqrt(sum(squares))

    def draw_ahead(self, steps, rows):
        """The noise of the coming train steps on `rows` images, for a loop that draws it at once.

        A dictionary from layers that a step calls once to tensors `(steps, ...)`; the others draw
        in each call.
        """
        return {}

    @contextlib.contextmanager
    def as_in_a_loop(self, measured, drawn):
        """Within it a train step takes its norm, or not, and `drawn`: a row of `draw_ahead`'s."""
        try:
            self.measured = measured
            for layer, noise in drawn.items():
                layer.drawn = iter([noise])
            yield
        finally:
            self.measured = True
            for layer in drawn:
                layer.drawn = None

    def track(self, count, terms):
        """Add a step's terms to the running means over `count` images more, and return these."""
        for tracker in self._trackers:
            tracker.update_state(terms[tracker.name], sample_weight=count)
        return {tracker.name: tracker.result() for tracker in self._trackers}

    @property
    def _in_one_loop(self):
        return not self.run_eagerly and not tf.distribute.has_strategy()

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        if self._in_one_loop:
            self.train_function = execution.make_loop_function(self)
        elif self.run_eagerly:
            self.train_function = execution.make_eager_function(self)
        else:
            super().make_train_function(force=True)
            self.train_function = execution.with_running_means(self, self.train_function)

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
        x, y, kwargs = self._checked_arguments(x, y, kwargs, look=True)
        kwargs = self._restored(kwargs | {"callbacks": self._all_callbacks(kwargs)})
        arrays = isinstance(x, np.ndarray)
        if arrays:
            x, y, kwargs = self._split_validation(x, y, kwargs)
            batch_size = check_positive_int("batch_size", 100 if batch_size is None else batch_size)
            kwargs.setdefault("validation_batch_size", batch_size)
        steps = steps_per_epoch or _num_batches(x, batch_size)
        if self._auto_steps:
            self._set_steps_per_execution(steps, exact=steps_per_epoch is not None)
        if arrays and steps_per_epoch is None and not tf.distribute.has_strategy():
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

    def _all_callbacks(self, kwargs):
        """The model's own and the caller's; one that restores comes last, after what it restores."""
        hooks = kwargs.get("callbacks") or []
        hooks = list(hooks) if isinstance(hooks, (list, tuple)) else [hooks]
        given = {type(hook) for hook in hooks}
        own = [hook for hook in self.own_callbacks() if type(hook) not in given]
        return sorted([*own, *hooks], key=lambda hook: hasattr(hook, "restore"))

    def _restored(self, kwargs):
        """Let a callback such as `Checkpoints` bring back an earlier state, and begin there."""
        for hook in kwargs["callbacks"]:
            if hasattr(hook, "restore"):
                kwargs = {**kwargs, "initial_epoch": hook.restore(self, kwargs["callbacks"])}
        return kwargs

    def _executions(self, rows, batch_size, shuffle, epoch):
        """The data of `fit`, from `epoch` on; by default from where the last `fit` ended."""
        if epoch is None:
            epoch = self.steps_made // _num_batches(rows[0], batch_size)
        steps, seed = self.steps_per_execution, self._order_seed
        return execution.executions(rows, batch_size, steps, seed, shuffle, epoch)

    def _set_steps_per_execution(self, steps, exact):
        # Keras's own loop of many steps does not compile for several devices.
        chosen = 1 if tf.distribute.has_strategy() else execution.choose_steps(steps, exact)
        if chosen != self.steps_per_execution:
            self.steps_per_execution, self.train_function, self.test_function = chosen, None, None

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.evaluate`: −ELBO and its terms, one draw of z an image.

        The noise is fixed, and that of training goes on undisturbed: evaluating twice gives the
        same figure, and evaluating in the middle of training does not change it.
        """
        states = [layer.seed_generator.state for layer in self.noise_layers]
        before = [state.value.numpy() for state in states]
        for state, old in zip(states, before, strict=True):
            state.assign(np.array([EVALUATION_SEED, 0], old.dtype))
        try:
            if kwargs.get("_use_cached_eval_dataset"):  # `fit` has checked it
                return super().evaluate(x, y, batch_size=batch_size, **kwargs)
            x, y, kwargs = self._checked_arguments(x, y, kwargs)
            return super().evaluate(x, y, batch_size=batch_size or 100, **kwargs)
        finally:
            for state, old in zip(states, before, strict=True):
                state.assign(old)

    def predict(self, x, batch_size=None, **kwargs):
        """Reconstructed images in [0, 1], as a NumPy array of the shape of `x`."""
        x, _, kwargs = self._checked_arguments(x, None, kwargs)
        return super().predict(x, batch_size=batch_size, **kwargs)

    # Checks.

    def assert_built(self, method):
        if not self.built:
            raise ValueError(
                f"This {type(self).__name__} has not seen an image yet, so `{method}` does not know "
                "their shape. Call `fit` first, or `build((None, height, width, channels))`."
            )

    def _checked(self, x, argument="x"):
        """Arrays are checked against the contract and the model's shape; tensors pass."""
        if tf.is_tensor(x) or isinstance(x, keras.KerasTensor):
            return x
        x = data.check_images(x, argument, self.value_range)
        if self.built and x.shape[1:] != self.image_shape:
            raise invalid(argument, f"images of shape {self.image_shape}", f"shape {x.shape[1:]}")
        return x

    def _checked_arguments(self, x, y, kwargs, look=False):
        """Check and normalise the data arguments of `fit`, `evaluate` and `predict`."""
        for name in ("sample_weight", "class_weight"):
            if kwargs.pop(name, None) is not None:
                raise _refused(name, f"{name}=...")
        x = self._checked_source(x, "x", look)
        if y is not None and isinstance(x, np.ndarray) and len(y) != len(x):
            raise invalid("y", f"one label for each of {len(x)} images", f"{len(y)} labels")
        if kwargs.get("validation_data") is not None:
            held, labels, weight = keras.utils.unpack_x_y_sample_weight(kwargs["validation_data"])
            if weight is not None:
                raise _refused("sample_weight", "a third element of validation_data")
            held = self._checked_source(held, "validation_data")
            kwargs = {**kwargs, "validation_data": held if labels is None else (held, labels)}
        return x, y, kwargs

    def _checked_source(self, x, argument, look=False):
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
        if look:
            self.look_at(first[:100])
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

    def get_compile_config(self):
        config = super().get_compile_config()
        if not config:  # never compiled
            return config
        keep = ("optimizer", "run_eagerly", "jit_compile")
        steps = "auto" if getattr(self, "_auto_steps", True) else self.steps_per_execution
        return {**{k: config[k] for k in keep if k in config}, "steps_per_execution": steps}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


def _num_batches(x, batch_size):
    """How many batches an epoch has; None where that is unknown or without end."""
    if isinstance(x, np.ndarray):
        return -(-len(x) // batch_size)
    count = int(x.cardinality()) if isinstance(x, tf.data.Dataset) else x.num_batches
    return count if count and count > 0 else None


def _refused(argument, received):
    return invalid(
        argument,
        "nothing: the loss is the model's own, the same for each image",
        received,
        "To weigh images, repeat or leave out rows of the data."
        if "weight" in argument
        else "Override `regularizer` in a subclass to change the loss.",
    )
