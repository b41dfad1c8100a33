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
from vae_tf.engine import attributes
from vae_tf.errors import InvalidValueError, check_positive_int

MAGIC = b"vae_tf checkpoint 2\n"


class CheckpointError(OSError):
    """A checkpoint could not be written; the message names the last good one and what to do."""


class Checkpoints(keras.callbacks.Callback):
    """Write checkpoints while `fit` runs, and begin with the newest that is whole.

    Give the same call of `fit` the same callback after an interruption, and the result is the one
    of the call that was never interrupted: weights, optimizer, history. The order of the data is
    restored for arrays; a `tf.data` set must give each epoch the same order again by itself. The
    plain attributes (numbers, lists, arrays; no texts) of the call's other callbacks are kept and
    restored too, such as the patience that Keras's `EarlyStopping` has left, and its best weights.

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
        self._others, self._restored, self._of_training = (), None, None
        self._epoch, self._steps, self._stepped = 0, 0, False
        self.saved_step = 0  # of the newest checkpoint

    def restore(self, model, callbacks):
        """Bring `model` to the newest whole checkpoint; `fit` calls it before it begins.

        Args:
            model: the model that is to be trained.
            callbacks: those of this `fit`.

        Returns:
            The epoch to begin with; 0 where there is no checkpoint, and the one after the last where
            training had come to its end.
        """
        others = [h for h in callbacks if h is not self and not getattr(h, "transient", False)]
        self._others = [(hook, dict(vars(hook))) for hook in others]
        self._of_training, self.saved_step = None, 0
        files.remove_scratch(self.directory)
        self._restored = load_newest(self.directory)
        if self._restored is None:
            return 0
        state, arrays = self._restored
        _assign(_variables(model), arrays[: state["variables"]], self.directory)
        self.saved_step = model.steps_made
        if state["ended"]:
            return state["params"]["epochs"]
        model.engine.skipped_steps = state["steps_of_epoch"]
        return state["epoch"]

    def on_train_begin(self, logs=None):
        if self._restored is None:
            return
        if (then := self._restored[0]["params"]) != _params(self.params):
            raise InvalidValueError(
                f"The checkpoints in {self.directory} are of another call of `fit`: expected "
                f"{then}. Received: {_params(self.params)}. Give the same arguments as "
                "before, or another directory."
            )
        self._bring_back()

    def on_epoch_begin(self, epoch, logs=None):
        if self._restored is None:
            self._epoch, self._steps = epoch, 0
            self._save_if_due()
            return
        self._bring_back()  # `fit` has reset the metrics, and what callbacks keep of an epoch
        self._epoch, self._steps = epoch, self._restored[0]["steps_of_epoch"]
        self._restored = None

    def _bring_back(self):
        state, arrays = self._restored
        _assign(_variables(self.model), arrays[: state["variables"]], self.directory)
        kept = list(state["callbacks"])
        for callback, _ in self._others:
            found = next((entry for entry in kept if entry[0] == type(callback).__name__), None)
            if found is not None:
                kept.remove(found)
                attributes.bring_back(callback, found[1], arrays, self.directory)

    def on_steps_end(self, steps):
        self._stepped = True
        self._steps += len(steps)

    def on_train_batch_end(self, batch, logs=None):
        if self._stepped:  # not where an execution is passed over, on the way to where it ended
            self._stepped = False
            self._save_if_due()

    def on_test_begin(self, logs=None):
        """Keep the epoch's running means, which evaluation takes for its own."""
        self._of_training = {id(v): v.value.numpy() for v in _metric_variables(self.model)}

    def on_test_end(self, logs=None):
        self._of_training = None

    def on_train_end(self, logs=None):
        """Keep the end as well: to find nothing left to do."""
        if self._restored is None or not self._restored[0]["ended"]:
            self._write(ended=True)
        self._restored = None

    def _save_if_due(self):
        if self.model.steps_made - self.saved_step >= self.every_steps:
            self._write()

    def save(self):
        """Write a checkpoint now, which must not be in the middle of an execution."""
        if self.model.steps_made > self.saved_step:
            self._write()

    def _write(self, ended=False):
        variables, kept = _variables(self.model), self._of_training or {}
        arrays = [kept[id(v)] if id(v) in kept else v.value.numpy() for v in variables]
        if not all(np.isfinite(array).all() for array in arrays):
            return  # the last good one stays; the next step shows the loss that stops training
        state = {
            "step": self.model.steps_made,
            "epoch": self._epoch,
            "steps_of_epoch": self._steps,
            "ended": ended,
            "params": _params(self.params),
            "variables": len(arrays),
            "callbacks": [
                [type(hook).__name__, attributes.found(hook, given, arrays)]
                for hook, given in self._others
            ],
        }
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write(self.directory / f"step_{state['step']:010d}.ckpt", state, arrays)
            for path in checkpoint_paths(self.directory)[self.keep :]:
                path.unlink()
        except OSError as error:
            raise _cannot_write(self.directory, error) from error
        self.saved_step = state["step"]


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
    """Save a model so that `path` is whole at any moment, after a crash too."""
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
            state, arrays = read(path)
            _check(state)
            return state, arrays
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
    """`(state, arrays)` of one checkpoint. It is data, whoever wrote it: nothing in it is run.

    Raises:
        ValueError: it is damaged.
    """
    content = path.read_bytes()
    header, digest = content[: len(MAGIC)], content[len(MAGIC) : len(MAGIC) + 32]
    payload = content[len(MAGIC) + 32 :]
    if header[:-2] == MAGIC[:-2] and header != MAGIC:
        raise ValueError("another version of vae_tf wrote it")
    if header != MAGIC or hashlib.sha256(payload).digest() != digest:
        raise ValueError(f"its checksum does not match its {len(content)} bytes")
    try:
        return _parsed(payload)
    except Exception as error:  # whatever zipfile, NumPy and JSON make of it
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _parsed(payload):
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.zip.infolist()):
            raise ValueError("it is compressed, and no checkpoint is")
        arrays = [file[name] for name in sorted(file.files) if name != "state"]
        state = dict(json.loads(file["state"].tobytes()))
    return state, arrays


def _check(state):
    """Raise a ValueError unless a state is one that `Checkpoints` writes."""
    counts = [state.get(name) for name in ("step", "epoch", "steps_of_epoch", "variables")]
    known = all(type(count) is int and count >= 0 for count in counts)
    known &= type(state.get("ended")) is bool and type(state.get("params")) is dict
    known &= type(state.get("callbacks")) is list
    if not known or not all(
        type(entry) is list and list(map(type, entry)) == [str, dict]
        for entry in state["callbacks"]
    ):
        raise ValueError("its state is not one of a training")


def _metric_variables(model):
    return [variable for metric in model.metrics for variable in metric.variables]


def _variables(model):
    """Every variable that a step reads or writes, in a fixed order."""
    return [*model.variables, *_metric_variables(model), *model.optimizer.variables]


def _assign(variables, arrays, directory):
    expected = [(tuple(variable.shape), variable.value.numpy().dtype) for variable in variables]
    if expected != [(array.shape, array.dtype) for array in arrays]:
        raise InvalidValueError(
            f"The checkpoints in {directory} are of another model or optimizer: {len(arrays)} arrays, "
            f"and this one has {len(variables)}, or of other shapes or types. Give another directory."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _params(params):
    return {"epochs": params["epochs"], "steps": params["steps"]}


def _cannot_write(directory, error):
    paths = checkpoint_paths(directory)
    kept = f"The last good one is {paths[0]}." if paths else "There is none yet."
    return CheckpointError(
        f"Could not write a checkpoint in {directory}: {error.strerror or error}. {kept} "
        "Make room, and go on from there by calling `fit` again, or with vae-tf train --resume RUN."
    )
