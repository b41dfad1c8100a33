"""Checkpoints from which training goes on bit for bit (on one CPU, with the same versions).

What a step depends on is all there: weights, the optimizer, the random state of the noise, β, the
running means of the epoch, the place in the order of the data, and the state of other callbacks.
A file is written aside, synced, and renamed; it begins with a checksum of the rest.
"""

import hashlib
import io
import json
import pathlib
import re
import warnings
import zipfile

import keras
import numpy as np

from vae_tf import files
from vae_tf.errors import InvalidValueError, check_positive_int

MAGIC = b"vae_tf checkpoint 1\n"


class CheckpointError(OSError):
    """A checkpoint could not be written; the message names the last good one and what to do."""


class Checkpoints(keras.callbacks.Callback):
    """Write checkpoints while `fit` runs, and begin with the newest that is whole.

    Give the same call of `fit` the same callback after an interruption, and the result is the one
    of the call that was never interrupted: weights, optimizer, history. The order of the data is
    restored for arrays; a `tf.data` set must give each epoch the same order again by itself. The
    plain attributes (numbers, texts, lists) of the call's other callbacks are kept and restored too,
    such as the patience that Keras's `EarlyStopping` has left.

    Args:
        directory: where the files go; made if it is not there.
        every_steps: how far apart, at least. The end of training is kept too.
        keep: how many of them, newest first, are kept.

    Raises:
        ValueError: the checkpoints there are of another model or another call of `fit`.
        CheckpointError: one could not be written, on a full disk for example.

    Example:
        >>> vae.fit(x, epochs=100, callbacks=[Checkpoints("checkpoints")])  # doctest: +SKIP
    """

    def __init__(self, directory, every_steps=1000, keep=3):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.every_steps = check_positive_int("every_steps", every_steps)
        self.keep = check_positive_int("keep", keep)
        self._others = ()
        self._restored, self._saved, self._epoch, self._steps = None, 0, 0, 0
        self._stepped = False

    def restore(self, model, callbacks):
        """Bring `model` to the newest whole checkpoint; `fit` calls it before it begins.

        Args:
            model: the model that is to be trained.
            callbacks: those of this `fit`.

        Returns:
            The epoch to begin with; 0 where there is no checkpoint.
        """
        self._others = [
            hook for hook in callbacks if hook is not self and not getattr(hook, "transient", False)
        ]
        files.remove_scratch(self.directory)
        self._restored = load_newest(self.directory)
        if self._restored is None:
            return 0
        state, arrays = self._restored
        _assign(_variables(model), arrays, self.directory)
        model.engine.skipped_steps = state["steps_of_epoch"]
        self._saved = model.steps_made
        return state["epoch"]

    def on_epoch_begin(self, epoch, logs=None):
        if self._restored is None:
            self._epoch, self._steps = epoch, 0
            self._save_if_due()
            return
        state, arrays = self._restored  # `fit` has reset the metrics and the other callbacks since
        if state["params"] != _params(self.params):
            raise InvalidValueError(
                f"The checkpoints in {self.directory} are of another call of `fit`: expected "
                f"{state['params']}. Received: {_params(self.params)}. Give the same arguments as "
                "before, or another directory."
            )
        _assign(_variables(self.model), arrays, self.directory)
        self._epoch, self._steps = epoch, state["steps_of_epoch"]
        self.model.history.history.update(state["history"])
        self.model.history.epoch[:] = range(epoch)
        kept = list(state["callbacks"])
        for callback in self._others:
            found = next((entry for entry in kept if entry[0] == type(callback).__name__), None)
            if found is not None:
                vars(callback).update(found[1])
                kept.remove(found)
        self._restored = None

    def on_steps_end(self, steps):
        self._stepped = True
        self._steps += len(steps)

    def on_train_batch_end(self, batch, logs=None):
        if self._stepped:  # not where an execution is passed over, on the way to where it ended
            self._stepped = False
            self._save_if_due()

    def on_train_end(self, logs=None):
        """Keep the end as well: to go on with more epochs, and to find nothing left to do."""
        self._restored = None
        if self.model.steps_made > self._saved:
            self._epoch, self._steps = self._epoch + 1, 0
            self._save()

    def _save_if_due(self):
        if self.model.steps_made - self._saved >= self.every_steps:
            self._save()

    def _save(self):
        step = self.model.steps_made
        state = {
            "step": step,
            "epoch": self._epoch,
            "steps_of_epoch": self._steps,
            "params": _params(self.params),
            "history": self.model.history.history,
            "callbacks": [[type(hook).__name__, _plain_attributes(hook)] for hook in self._others],
        }
        arrays = [variable.value.numpy() for variable in _variables(self.model)]
        if not all(np.isfinite(array).all() for array in arrays):
            return  # the last good one stays; the next step shows the loss that stops training
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write(self.directory / f"step_{step:010d}.ckpt", state, arrays)
        except OSError as error:
            raise _cannot_write(self.directory, error) from error
        self._saved = step
        for path in checkpoint_paths(self.directory)[self.keep :]:
            path.unlink()


class BestModel(keras.callbacks.Callback):
    """Keep the model with the lowest `val_loss` so far at `path`, written aside and renamed."""

    def __init__(self, path):
        super().__init__()
        self.path, self.best = path, float("inf")

    def on_epoch_end(self, epoch, logs=None):
        if (logs or {}).get("val_loss", float("inf")) < self.best:
            self.best = float(logs["val_loss"])
            save_model(self.path, self.model)


def save_model(path, model):
    """Save a model so that `path` is whole at any moment."""
    with files.aside(path) as scratch:
        model.save(scratch)


def checkpoint_paths(directory):
    """The checkpoints in a directory, newest first, whole or not."""
    paths = pathlib.Path(directory).glob("step_*.ckpt")
    return sorted((p for p in paths if re.fullmatch(r"step_\d+\.ckpt", p.name)), reverse=True)


def load_newest(directory):
    """`(state, arrays)` of the newest whole checkpoint, or None; a damaged one is named and passed."""
    for path in checkpoint_paths(directory):
        try:
            return read(path)
        except (ValueError, OSError) as error:
            warnings.warn(
                f"Checkpoint {path} is damaged ({error}); trying the one before it.", stacklevel=2
            )
    return None


def write(path, state, arrays):
    """Write one checkpoint, whole or not at all."""
    buffer = io.BytesIO()
    named = {f"{index:05d}": array for index, array in enumerate(arrays)}
    np.savez(buffer, state=np.frombuffer(json.dumps(state).encode(), np.uint8), **named)
    payload = buffer.getvalue()
    files.write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload)


def read(path):
    """`(state, arrays)` of one checkpoint.

    Raises:
        ValueError: it is damaged.
    """
    content = path.read_bytes()
    header, digest = content[: len(MAGIC)], content[len(MAGIC) : len(MAGIC) + 32]
    payload = content[len(MAGIC) + 32 :]
    if header != MAGIC or hashlib.sha256(payload).digest() != digest:
        raise ValueError(f"its checksum does not match its {len(content)} bytes")
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            arrays = [file[name] for name in sorted(file.files) if name != "state"]
            return json.loads(file["state"].tobytes()), arrays
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def _variables(model):
    """Every variable that a step reads or writes, in a fixed order."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [*model.variables, *metrics, *model.optimizer.variables]


def _assign(variables, arrays, directory):
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [array.shape for array in arrays]:
        raise InvalidValueError(
            f"The checkpoints in {directory} are of another model or optimizer: {len(arrays)} "
            f"arrays, and this one has {len(variables)}, or of other shapes. Give another directory."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _params(params):
    return {"epochs": params["epochs"], "steps": params["steps"]}


def _plain_attributes(callback):
    """The attributes of a callback that JSON can hold: counters, bests, records."""
    plain = {}
    for name, value in vars(callback).items():
        if name in ("params", "model", "_model"):
            continue
        try:
            plain[name] = json.loads(json.dumps(value, default=_to_python))
        except (TypeError, ValueError):
            continue
    return plain


def _to_python(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError


def _cannot_write(directory, error):
    paths = checkpoint_paths(directory)
    kept = f"The last good one is {paths[0]}." if paths else "There is none yet."
    return CheckpointError(
        f"Could not write a checkpoint in {directory}: {error.strerror or error}. {kept} "
        "Make room, and go on from there by calling `fit` again, or with vae-tf train --resume RUN."
    )
