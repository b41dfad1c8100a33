"""Callbacks for `fit`: schedules of the objective, guards, and records of every step.

Keras calls a callback's batch methods once for each execution of up to 100 steps. What happened in
each step reaches `on_steps_end(steps)`, a `step.Steps` with the terms that the model has.
"""

import contextlib
import signal
import threading

import keras
import numpy as np

from vae_tf.errors import InvalidTypeError, check_non_negative, check_positive_int, invalid

OF_EPOCHS = ("active_units", "aggregate_kl", "perplexity")  # what `monitor` adds to an epoch's logs


class KLWarmup(keras.callbacks.Callback):
    """Raise the KL's weight β from 0 to `beta`, linearly over the optimizer's first `steps` steps.

    β changes inside the compiled loop, at every step. With `steps=0` it is `beta` from the start.
    `beta=None` is the model's own: 1, or the one that a `BetaVAE` was made with.
    Source: Sønderby et al. (2016), "Ladder Variational Autoencoders", section 2.3; Bowman et al. (2016).
    """

    def __init__(self, steps, beta=None):
        super().__init__()
        self.steps = check_positive_int("steps", steps, minimum=0)
        self.beta = None if beta is None else check_non_negative("beta", beta)

    def on_train_begin(self, logs=None):
        check_setting(self, "beta")
        self.model.kl_warmup_steps.assign(self.steps)
        if self.beta is not None:
            self.model.beta_end.assign(self.beta)


class FreeBits(keras.callbacks.Callback):
    """Let each latent dimension have `nats` of KL (its mean over a batch) at no cost.

    The objective's KL becomes Σ_j max(KL_j, nats); the losses that are shown stay what they are.
    Source: Kingma et al. (2016), "Improved Variational Inference with Inverse Autoregressive Flow",
    appendix C.8.
    """

    def __init__(self, nats):
        super().__init__()
        self.nats = check_non_negative("nats", nats)

    def on_train_begin(self, logs=None):
        check_setting(self, "free_bits")
        self.model.free_bits.assign(self.nats)


class StopAt(keras.callbacks.Callback):
    """Stop when the optimizer has made `steps` steps, in the middle of an epoch if need be."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_begin(self, logs=None):
        self.model.engine.step_limit = self.steps

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps_made >= self.steps:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.engine.step_limit = None


class StepHistory(keras.callbacks.Callback):
    """Record every term of the model, its settings and the gradient's norm: each of the first 200
    steps, then means of ever more steps. The norm is measured in the first 200 steps, then once an
    execution.

    The KL, for example, falls and rises within the first few hundred steps, which a record an epoch
    does not show. `rows` is a list of dictionaries; `columns()` gives arrays, as
    `plots.train_process` takes them.
    """

    def __init__(self):
        super().__init__()
        self.rows, self.pending, self.epoch = [], [], 0

    def columns(self):
        """The record as a dictionary of float arrays; NaN where a row has no value."""
        return as_columns(self.rows)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_steps_end(self, steps):
        columns = {name: term for name, term in steps.terms.items() if term.ndim == 1}
        columns |= {name: value for name, value in steps.numbers.items() if name != "images"}
        for index, step in enumerate(range(steps.first, steps.last + 1)):
            self.pending.append({name: float(column[index]) for name, column in columns.items()})
            if step <= 200 or step % (10 if step <= 2000 else 50) == 0:
                self._flush(step)

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        extra = {k: v for k, v in logs.items() if k.startswith("val_") or k in OF_EPOCHS}
        if any(name not in OF_EPOCHS for name in extra):
            self._flush(self.model.steps_made)
            self.rows[-1] |= extra

    def on_train_end(self, logs=None):
        self._flush(self.model.steps_made)

    def _flush(self, step):
        if self.pending:
            self.rows.append({"step": step, "epoch": self.epoch + 1, **mean_of_known(self.pending)})
            self.pending = []


class Interruption(keras.callbacks.Callback):
    """Answer Ctrl-C between executions, so that every step that was made is in the record.

    A second Ctrl-C is answered at once; so is the first where no step is recorded yet.

    Args:
        begun: whether there are steps in the record already.
        save: what to do first, such as `Checkpoints.save`.
    """

    transient = True  # nothing of it belongs in a checkpoint

    def __init__(self, begun=False, save=None):
        super().__init__()
        self.begun, self.asked, self.save = begun, False, save

    def on_steps_end(self, steps):
        self.begun = True

    def on_train_batch_end(self, batch, logs=None):
        self.on_test_batch_end(batch)

    def on_test_batch_end(self, batch, logs=None):
        if self.asked:
            if self.save is not None:
                self.save()
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def installed(self):
        """Take Python's own handler's place, in the main thread; another handler stays."""
        here = threading.current_thread() is threading.main_thread()
        if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, *_):
        if self.asked or not self.begun:
            raise KeyboardInterrupt
        self.asked = True


class FiniteGuard(keras.callbacks.Callback):
    """Stop at the first step whose loss, or another of its terms, is not finite; in every `fit`.

    Raises:
        FloatingPointError: names the term and the step, and says what usually helps.
    """

    def on_steps_end(self, steps):
        terms = {name: term for name, term in steps.terms.items() if term.ndim == 1}
        bad = ~np.isfinite(np.stack(list(terms.values()), axis=1))
        if not bad.any():
            return
        row = int(bad.any(axis=1).argmax())
        values = {name: term[row] for name, term in terms.items()}
        parts = [name for name in values if name != "loss" and not np.isfinite(values[name])]
        found = " and ".join(f"{name} is {values[name]}" for name in parts or ["loss"])
        raise FloatingPointError(
            f"At step {steps.first + row}, {found}. What usually helps: a smaller learning rate, a "
            "longer KL warm-up, clipped gradients, inputs that the likelihood expects."
        )


def check_setting(callback, name):
    """Raise unless the model has the number of the objective that a callback sets."""
    if not hasattr(callback.model, name):
        expected = f"a model with `{name}`, for {type(callback).__name__}"
        received = f"a {type(callback.model).__name__} that has none"
        raise invalid("callbacks", expected, received, kind=InvalidTypeError)


def mean_of_known(rows):
    """The mean of each entry over the rows that have it; NaN where none has.

    A norm is infinite in the steps that float16 training leaves out, to find its scale.
    """
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = {name: column[np.isfinite(column)] for name, column in columns.items()}
    return {k: float(column.mean()) if len(column) else np.nan for k, column in known.items()}


def as_columns(rows):
    """Dictionaries as one of float arrays, with the keys of all; NaN for no value."""

    def number(value):
        return float("nan" if value in (None, "") else value)

    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([number(row.get(name)) for row in rows]) for name in names}
