"""`compile`, `fit`, `evaluate` and `predict` of every model, as Keras has them."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf

from vae_tf.engine import inputs, loop, room
from vae_tf.engine.callbacks import FiniteGuard
from vae_tf.engine.monitor import CodeMonitor, LatentMonitor
from vae_tf.engine.one_step import StepModel
from vae_tf.engine.order import Order, choose_steps
from vae_tf.errors import check_positive_int


class Trainer(StepModel):
    """A `keras.Model` with its loss inside and many steps in one compiled loop.

    `models.base.Model` says what a model gives. After each execution, callbacks that have a method
    `on_steps_end(steps)` are given the steps that were made, a `step.Steps`.
    """

    @property
    def steps_made(self):
        """How many steps the optimizer has made, as an int."""
        return int(tf.convert_to_tensor(self.optimizer.iterations.value))

    @property
    def has_usual_train_step(self):
        return type(self).train_step is StepModel.train_step

    # Keras's functions.

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self.train_function = loop.make_train_function(self)

    def make_test_function(self, force=False):
        """One step of Keras's own, called for each step of an execution."""
        if self.test_function is not None and not force:
            return
        one_step = self._make_function(self.test_step)

        def test_function(iterator):
            steps = self.steps_per_execution
            with self._steps_per_execution(1):
                logs = one_step(iterator)
                for _ in range(steps - 1):
                    try:
                        logs = one_step(iterator)
                    except (StopIteration, tf.errors.OutOfRangeError):
                        break
            return logs

        self.test_function = test_function

    @contextlib.contextmanager
    def _steps_per_execution(self, steps):
        before, self.steps_per_execution = self.steps_per_execution, steps
        try:
            yield
        finally:
            self.steps_per_execution = before

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
            steps_per_execution: how many steps run in one compiled loop. Keras's batch callbacks are
                called once for each such loop, not for each step; `on_steps_end(steps)` of a
                callback is given every step's terms. "auto" takes up to 100 of an epoch's steps; 1
                calls them at every step.
            run_eagerly: as in Keras.
            jit_compile: "auto" compiles with XLA where there is one device, the CPU too, and where
                the model has no convolutions: XLA's own, on a CPU, are fifty times slower than
                TensorFlow's.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.pop(name, None) is not None:
                raise inputs.refused(name, f"compile({name}=...)")
        if steps_per_execution != "auto":
            check_positive_int("steps_per_execution", steps_per_execution)
        self._auto_steps = steps_per_execution == "auto"
        self._auto_jit = jit_compile == "auto"
        with self.distribute_strategy.scope():
            super().compile(
                optimizer=keras.optimizers.Adam(1e-3) if optimizer is None else optimizer,
                steps_per_execution=1 if self._auto_steps else steps_per_execution,
                run_eagerly=run_eagerly,
                jit_compile=not self._auto_jit and jit_compile,
                **kwargs,
            )

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """The model is built. Keras's own fails on several devices' uneven batches.

        Keras hands over what it iterates over: where that stands for `engine.feed`, which has no end,
        it is told so, or it would stop an epoch of `steps_per_epoch` after one time round. It counts
        whole executions, and its progress bar would go beyond an epoch that ends within one.
        """
        if iterator is None:
            return
        _end_with_the_epoch(iterator)
        evaluates = iterator is getattr(self, "_eval_epoch_iterator", None)
        if self.engine.feed is not None and not evaluates and iterator.steps_per_epoch:
            iterator.data_adapter._size = None

    @property
    def suits_xla(self):
        """Whether XLA makes the model quicker on a CPU: not where it has convolutions."""
        return not any(hasattr(layer, "kernel_size") for layer in self._flatten_layers())

    @property
    def _several_devices(self):
        return self.distribute_strategy.num_replicas_in_sync > 1

    def fit(self, x=None, y=None, batch_size=None, steps_per_epoch=None, shuffle=True, **kwargs):
        """As `keras.Model.fit`, on arrays or on a `tf.data` set; everything is checked first.

        Args:
            x, y: images, and the condition of a model that has one (other labels are not used); or a
                `tf.data` set alone.
            batch_size: for arrays, by default 100, as in the original program.
            steps_per_epoch, shuffle, kwargs: as in Keras. `sample_weight` and `class_weight` are
                refused.
        """
        self._assert_compile_called("fit")
        x, y, kwargs, first = inputs.checked_arguments(self, x, y, kwargs)
        room.check_batch(self, x, min(batch_size or 100, len(first[0])))
        self._prepare(first)
        self.check_support(first[0])
        self._begin(x, first[0])
        kwargs = self._restored(kwargs | {"callbacks": self._all_callbacks(kwargs)})
        arrays = isinstance(x, np.ndarray)
        if arrays:
            x, y, kwargs = inputs.split_validation(x, y, kwargs)
            batch_size = check_positive_int("batch_size", 100 if batch_size is None else batch_size)
            kwargs.setdefault("validation_batch_size", batch_size)
        steps = steps_per_epoch or inputs.num_batches(x, batch_size)
        if self._auto_steps:
            self._set_steps_per_execution(steps, exact=steps_per_epoch is not None)
        if arrays:
            first_step = kwargs.get("initial_epoch", self.steps_made // steps) * steps
            order = Order(len(x), batch_size, self.order_seed, shuffle, steps_per_epoch, first_step)
            x, y = tf.convert_to_tensor(x), None if y is None else tf.convert_to_tensor(y)
            self.engine.feed = (x,) if y is None else (x, y), order
        self.engine.listeners = [h for h in kwargs["callbacks"] if hasattr(h, "on_steps_end")]
        try:
            return super().fit(
                x, y,
                batch_size=batch_size,
                steps_per_epoch=steps_per_epoch,
                shuffle=shuffle and arrays,  # a data set comes in the order that it was given
                **kwargs,
            )  # fmt: skip
        finally:
            self.engine.feed, self.engine.listeners, self.engine.skipped_steps = None, (), 0

    def _prepare(self, first):
        """What must be there before a step is traced."""
        with self.distribute_strategy.scope():
            self.learn_terms(first)
            if self.compiled and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
        if self.compiled and self._auto_jit:
            plain = not (self.run_eagerly or self._several_devices)
            self.jit_compile = plain and self.suits_xla

    def _begin(self, x, first):
        """Before the very first step a model that begins with training images is given them."""
        if self.begin is not None and not self.steps_made:
            self.begin(inputs.training_images(self, x, first))

    def _all_callbacks(self, kwargs):
        """The engine's own and the caller's; one that restores comes last, after what it restores."""
        hooks = kwargs.get("callbacks") or []
        hooks = list(hooks) if isinstance(hooks, (list, tuple)) else [hooks]
        if not any(isinstance(hook, keras.callbacks.History) for hook in hooks):
            hooks.append(keras.callbacks.History())  # Keras would add it after the last
        given = {type(hook) for hook in hooks}
        own = [hook() for hook in (FiniteGuard, LatentMonitor, CodeMonitor) if hook not in given]
        return sorted([*own, *hooks], key=lambda hook: hasattr(hook, "restore"))

    def _restored(self, kwargs):
        """Let a callback such as `Checkpoints` bring back an earlier state, and begin there."""
        for hook in kwargs["callbacks"]:
            if hasattr(hook, "restore"):
                kwargs = {**kwargs, "initial_epoch": hook.restore(self, kwargs["callbacks"])}
        return kwargs

    def _set_steps_per_execution(self, steps, exact):
        chosen = 1 if self._several_devices else choose_steps(steps, exact)
        if chosen != self.steps_per_execution:
            self.steps_per_execution, self.train_function = chosen, None

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """As `keras.Model.evaluate`: −ELBO and its terms, one draw of z an image.

        The noise is fixed by the number of the image, and that of training goes on undisturbed:
        evaluating twice gives the same figure, in batches of any size, and evaluating in the middle
        of training does not change it.
        """
        self._assert_compile_called("evaluate")
        self.engine.evaluated.assign(0)
        if kwargs.get("_use_cached_eval_dataset"):  # `fit` has checked it
            return super().evaluate(x, y, batch_size=batch_size, **kwargs)
        x, y, kwargs, first = inputs.checked_arguments(self, x, y, kwargs)
        self._prepare(first)
        with self._steps_per_execution(1):
            return super().evaluate(x, y, batch_size=batch_size or 100, **kwargs)

    def predict(self, x, batch_size=None, **kwargs):
        """Reconstructed images in [0, 1], as a NumPy array of the shape of `x`.

        Args:
            x: images; for a model with a condition a `tf.data` set of `(x, condition)`, or see
                `reconstruct`.
            batch_size, kwargs: as in Keras.
        """
        x, _, _ = inputs.checked_source(self, x, None, "x", "condition")
        with self._steps_per_execution(1):
            return super().predict(x, batch_size=batch_size, **kwargs)

    def _on_batch(self, x, y):
        x, y, _, first = inputs.checked_arguments(self, x, y, {})
        self._prepare(first)
        self.engine.evaluated.assign(0)
        return x, y

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        """As in Keras: one step on one batch."""
        self._assert_compile_called("train_on_batch")
        inputs.refuse_weights(sample_weight=sample_weight, class_weight=class_weight)
        return super().train_on_batch(*self._on_batch(x, y), **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """As in Keras: the terms of one batch."""
        inputs.refuse_weights(sample_weight=sample_weight)
        if self._several_devices:  # Keras's own gives the whole batch to each of them
            return self.evaluate(x, y, batch_size=len(x), verbose=0, **kwargs)
        with self._steps_per_execution(1):
            return super().test_on_batch(*self._on_batch(x, y), **kwargs)

    def predict_on_batch(self, x):
        """As in Keras: reconstructed images of one batch."""
        if self._several_devices:
            return self.predict(x, batch_size=len(x), verbose=0)
        x, _, _ = inputs.checked_source(self, x, None, "x", "condition")
        with self._steps_per_execution(1):
            return super().predict_on_batch(x)

    # Saving.

    def get_compile_config(self):
        config = super().get_compile_config()
        if not config:  # never compiled
            return config
        return {
            **{k: config[k] for k in ("optimizer", "run_eagerly") if k in config},
            "jit_compile": "auto" if self._auto_jit else self.jit_compile,
            "steps_per_execution": "auto" if self._auto_steps else self.steps_per_execution,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


def _end_with_the_epoch(iterator):
    """Let the number of an execution's last step be at most that of the epoch's last.

    Keras hands over one iterator for every validation of a `fit`: the class's own is what is wrapped.
    """
    each = functools.partial(type(iterator)._enumerate_iterator, iterator)

    def bounded():
        for first, last, data in each():
            known = iterator.num_batches
            yield first, min(last, known - 1) if known else last, data

    iterator._enumerate_iterator = bounded
