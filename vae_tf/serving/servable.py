"""One version of an exported model, loaded; what is asked of it is checked before it runs."""

import concurrent.futures
import functools
import logging
import math
import threading

import numpy as np
import tensorflow as tf

from vae_tf.export import c_api
from vae_tf.export.graph import call, failed_assertion, serve_graph, signature_defs
from vae_tf.export.operations import has_loops, operation_problems
from vae_tf.export.warmup import inputs_of, warmup_requests
from vae_tf.serving.status import ServingError, invalid_argument

log = logging.getLogger("vae_tf.serving")
DEFAULT_SIGNATURE = "serving_default"
_LOADING = "vae-tf-load"  # the name of the threads


class RefusedError(ValueError):
    """A model that may not be run."""


class Servable:
    """A SavedModel with its signatures.

    Args:
        path: the directory of the version.
        max_batch: rows that a request may have.
    """

    def __init__(self, path, max_batch):
        self.max_batch = max_batch
        self._model = tf.saved_model.load(str(path))
        self.functions = dict(self._model.signatures)
        self.signature_defs = signature_defs(serve_graph(path))
        self.specs = {
            name: function.structured_input_signature[1]
            for name, function in self.functions.items()
        }

    def predict(self, signature, inputs, outputs=()):
        """Run a signature on arrays by name; gives arrays by name, `outputs` or all.

        Raises:
            ServingError: the inputs are not those of the signature, or the model failed on them.
        """
        self.check_names(signature, inputs, outputs)
        rows = {
            name: self.check_shape(signature, name, array.shape) for name, array in inputs.items()
        }
        if len(set(rows.values())) > 1:
            given = ", ".join(f"{name}: {count}" for name, count in rows.items())
            raise invalid_argument(f"Inputs must have as many rows: got {given}.")
        tensors = {name: self._tensor(signature, name, array) for name, array in inputs.items()}
        try:
            results = self.functions[signature](**tensors)
        except tf.errors.OpError as error:
            if words := failed_assertion(error):  # the model's own, of what it was asked
                raise invalid_argument(words) from error
            log.error("signature %r failed: %s", signature, error)
            message = f"The model failed on this request ({type(error).__name__})."
            raise ServingError("INTERNAL", message) from error
        return {name: results[name].numpy() for name in outputs or results}

    @functools.cached_property
    def most_values(self):
        """How many numbers a request can have; infinity where a size is not known."""
        most = 0
        for specs in self.specs.values():
            sizes = [spec.shape[1:].num_elements() for spec in specs.values()]
            most = max(most, math.inf if None in sizes else self.max_batch * sum(sizes))
        return most

    def answer_values(self, signature, outputs=()):
        """How many numbers the answer to a row has, in outputs whose sizes are known."""
        known = self.functions[signature].structured_outputs
        shapes = [known[name].shape[1:] for name in outputs or known if name in known]
        return sum(shape.num_elements() or 0 for shape in shapes)

    def values(self, signature):
        """How many numbers a row has, inputs and outputs together, as far as their sizes are known."""
        shapes = [spec.shape[1:] for spec in self.specs_of(signature).values()]
        inputs = sum(shape.num_elements() or 0 for shape in shapes)
        return inputs + self.answer_values(signature)

    def is_batched(self, signature):
        """Whether all of its inputs and outputs have a row for each example."""
        outputs = self.functions[signature].structured_outputs
        shapes = [spec.shape for spec in (*self.specs_of(signature).values(), *outputs.values())]
        return all(shape.rank and shape[0] is None for shape in shapes)

    def check_names(self, signature, inputs, outputs=()):
        """Raise a `ServingError` unless the signature has these inputs, no other, and these outputs."""
        expected = self.specs_of(signature).keys()
        if inputs.keys() != expected:
            given = ", ".join(sorted(inputs)) or "none"
            message = f"Signature {signature!r} takes the inputs {', '.join(sorted(expected))}"
            raise invalid_argument(f"{message}; got {given}.")
        known = self.functions[signature].structured_outputs
        unknown = [name for name in outputs if name not in known]
        if unknown or len(set(outputs)) < len(outputs):
            message = f"Signature {signature!r} gives {', '.join(sorted(known))}, each once"
            raise invalid_argument(f"{message}; asked for {', '.join(outputs)}.")

    def specs_of(self, signature):
        """The inputs of a signature: `TensorSpec`s by name."""
        if signature not in self.specs:
            message = f'Serving signature name: "{signature}" not found: this model has '
            raise invalid_argument(message + ", ".join(sorted(self.specs)) + ".")
        return self.specs[signature]

    def check_shape(self, signature, name, shape):
        """The rows of an input of that shape, which is checked before a byte of it is copied."""
        expected = self.specs_of(signature).get(name)
        if expected is None:
            return None  # its name is what is wrong
        wanted = ", ".join(["batch", *map(str, expected.shape[1:])])
        given = ", ".join(map(str, shape))
        fits = len(shape) == len(expected.shape) and min(shape) >= 0
        if not fits or not expected.shape.is_compatible_with(shape):
            message = f"Input {name!r} must have the shape ({wanted}); got ({given})."
            raise invalid_argument(message)
        if shape[0] > self.max_batch:
            message = (
                f"Input {name!r} has {shape[0]} rows; this server takes {self.max_batch} at most."
            )
            raise invalid_argument(message)
        return shape[0]

    def _tensor(self, signature, name, array):
        expected = self.specs[signature][name].dtype
        if array.dtype != expected.as_numpy_dtype:
            message = f"Input {name!r} must be {expected.name}; got {array.dtype}."
            raise invalid_argument(message)
        if expected.is_floating and not np.isfinite(array).all():
            message = f"Input {name!r} holds NaN or infinity."
            raise invalid_argument(message)
        return tf.constant(array)


def load(path, max_batch, trust_model=False, seconds=120.0):
    """Load a version and run its warm-up requests, so that no request is the first.

    The operations are judged before anything is loaded. A call of TensorFlow cannot be ended from
    outside, so a model with loops, which alone may never end, is first tried in a process of its own,
    which can be killed. The rest is done in a thread, which is left behind where it takes too long.

    Args:
        path: the directory of the version.
        max_batch: rows that a request may have.
        trust_model: load it whatever its operations are, and without a trial.
        seconds: that the trial may take, and the loading.

    Raises:
        RefusedError: it has operations that are not allowed.
        TimeoutError, RuntimeError: it did not end in time, or the process of the trial died.
        OSError, ValueError, tf.errors.OpError, ...: it is no SavedModel that this TensorFlow loads.
    """
    graph = serve_graph(path)
    if not trust_model and (problems := operation_problems(graph)):
        raise RefusedError("; ".join(problems))
    requests = _warmup_runs(path, signature_defs(graph), max_batch)
    if not trust_model and has_loops(graph):
        calls = [call(graph.signature_def[name], inputs) for name, inputs in requests]
        c_api.run_in_fresh_process(c_api.library_path(), path, calls, seconds)
    return _in_time(seconds, _loaded, path, max_batch, requests)


def left_behind():
    """Whether a model that was given up still computes."""
    return any(thread.name == _LOADING for thread in threading.enumerate())


def _warmup_runs(path, signatures, max_batch):
    """`(signature, inputs)` of the recorded requests that this server would take."""
    runs = []
    for request in warmup_requests(path):
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in signatures and request.inputs.keys() == signatures[name].inputs.keys():
            inputs = inputs_of(request)
            if all(len(array) <= max_batch for array in inputs.values()):
                runs.append((name, inputs))
    return runs


def _loaded(path, max_batch, requests):
    servable = Servable(path, max_batch)
    for signature, inputs in requests:
        servable.predict(signature, inputs)
    return servable


def _in_time(seconds, function, *arguments):
    """What a function gives, or raises, in a thread that is left behind after so many seconds."""
    outcome = concurrent.futures.Future()

    def run():
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:  # it is raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, name=_LOADING, daemon=True).start()
    try:
        return outcome.result(seconds)
    except concurrent.futures.TimeoutError as error:
        message = (
            f"it was not loaded and warmed up after {seconds:g} seconds; what it computes goes on"
        )
        raise TimeoutError(
            f"{message} in the background until it ends, or the server does"
        ) from error
