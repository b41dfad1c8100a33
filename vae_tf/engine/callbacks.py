"""Callbacks for `fit`: schedules of the objective, guards, and records of every step.

Keras calls a callback's batch methods once for each execution of up to 100 steps. What happened in
each step reaches `on_steps_end(steps)`, a `step.Steps` with the terms that the model has.
"""

import contextlib
import signal
import threading
import warnings

import keras
import numpy as np
import tensorflow as tf

from vae_tf.errors import CollapseWarning, check_non_negative, check_positive_int

ACTIVE = 0.01  # a unit is active where Var_x E_q[z] is above this (Burda et al. 2016, section 5.2)


class KLWarmup(keras.callbacks.Callback):
    """Raise the KL's weight β from 0 to `beta`, linearly over the optimizer's first `steps` steps.

    β changes inside the compiled loop, at every step. With `steps=0` it is `beta` from the start.
    Source: Sønderby et al. (2016), "Ladder Variational Autoencoders", section 2.3; Bowman et al. (2016).
    """

    def __init__(self, steps, beta=1.0):
        super().__init__()
        self.steps = check_positive_int("steps", steps, minimum=0)
        self.beta = check_non_negative("beta", beta)

    def on_train_begin(self, logs=None):
        self.model.kl_warmup_steps.assign(self.steps)
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
        extra = {k: v for k, v in logs.items() if k.startswith("val_") or k == "active_units"}
        if any(name != "active_units" for name in extra):
            self._flush(self.model.steps_made)
            self.rows[-1] |= extra

    def on_train_end(self, logs=None):
        self._flush(self.model.steps_made)

    def _flush(self, step):
        if self.pending:
            self.rows.append({"step": step, "epoch": self.epoch + 1, **_means(self.pending)})
            self.pending = []


class Interruption(keras.callbacks.Callback):
    """Answer Ctrl-C between executions, so that every step that was made is in the record.

    A second Ctrl-C is answered at once; so is the first where no step is recorded yet.

    Args:
        begun: whether there are steps in the record already.
    """

    def __init__(self, begun=False):
        super().__init__()
        self.begun, self.asked = begun, False

    def on_train_batch_end(self, batch, logs=None):
        self.begun = True
        self.on_test_batch_end(batch)

    def on_test_batch_end(self, batch, logs=None):
        if self.asked:
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


class LatentMonitor(keras.callbacks.Callback):
    """Record what each latent dimension carries, an epoch at a time, and warn once of dead ones.

    Adds the model's settings (a VAE's `beta`), `gradient_norm` (mean over the steps where it was
    measured, before any clipping) and, for a model with the terms `kl_per_dimension`, `z_mean` and
    `z_mean_squared`, `active_units`, the number of dimensions with Var_x E_q[z] > 0.01, to the epoch's
    logs. `rows` is a list of dictionaries: `epoch`, `active_units`, `kl_per_dimension` in nats.

    Every `fit` has one of its own; give it one to read `rows` afterwards.

    Args:
        patience: for how many steps after the warm-up a dimension may still be inactive.

    Source: Burda et al. (2016), "Importance Weighted Autoencoders", section 5.2.
    """

    names = ("kl_per_dimension", "z_mean", "z_mean_squared")

    def __init__(self, patience=1000):
        super().__init__()
        self.patience = check_positive_int("patience", patience, minimum=0)
        self.rows, self.sums, self.norms, self.images, self.warned = [], {}, [], 0, False
        self.settings = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.sums, self.norms, self.images, self.settings = {}, [], 0, {}

    def on_steps_end(self, steps):
        numbers = dict(steps.numbers)
        self.norms += numbers.pop("gradient_norm").tolist()
        images = np.float64(numbers.pop("images"))
        self.images += float(images.sum())
        self.settings = {name: float(values[-1]) for name, values in numbers.items()}
        for name in self.names if set(self.names) <= set(steps.terms) else ():
            added = np.tensordot(images, steps.terms[name], axes=1)
            self.sums[name] = (np.array(self.sums.get(name, 0)) + added).tolist()

    def on_epoch_end(self, epoch, logs=None):
        if not self.images > 0:
            return
        extra = self.settings | _means([{"gradient_norm": norm} for norm in self.norms])
        if self.sums:
            extra["active_units"] = self._count(epoch)
        if logs is not None:
            logs |= extra

    def _count(self, epoch):
        kl, mean, squared = (np.array(self.sums[name]) / self.images for name in self.names)
        active = int(np.sum(squared - mean**2 > ACTIVE))
        self.rows.append(
            {"epoch": epoch + 1, "active_units": active, "kl_per_dimension": np.ravel(kl).tolist()}
        )
        self._warn(np.size(kl) - active, np.size(kl), bool(np.isfinite(mean).all()))
        return active

    def _warn(self, dead, of, known):
        steps = getattr(self.model, "kl_warmup_steps", 0)
        warm = float(tf.convert_to_tensor(getattr(steps, "value", steps))) + self.patience
        if self.warned or not known or not dead or self.model.steps_made < warm:
            return
        self.warned = True
        warnings.warn(
            f"{dead} of {of} latent dimensions are inactive (Var_x E_q[z] at most {ACTIVE}): the "
            "decoder does without them. If that is not wanted, a longer KL warm-up, free bits or a "
            "smaller weight of the KL usually help (KLWarmup(steps, beta), FreeBits(nats); "
            "vae-tf train --kl-warmup, --free-bits, --beta).",
            CollapseWarning,
            stacklevel=2,
        )


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


def _means(rows):
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
