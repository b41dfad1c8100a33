"""One version of an exported model, loaded; what is asked of it is checked before it runs."""

import logging

import numpy as np
import tensorflow as tf

from vae_tf.export.graph import serve_graph, signature_defs
from vae_tf.export.warmup import warmup_requests
from vae_tf.serving.status import ServingError

log = logging.getLogger("vae_tf.serving")
DEFAULT_SIGNATURE = "serving_default"


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
        self._check_names(signature, inputs, outputs)
        rows = {
            name: self.check_shape(signature, name, array.shape) for name, array in inputs.items()
        }
        if len(set(rows.values())) > 1:
            given = ", ".join(f"{name}: {count}" for name, count in rows.items())
            raise ServingError("INVALID_ARGUMENT", f"Inputs must have as many rows: got {given}.")
        tensors = {name: self._tensor(signature, name, array) for name, array in inputs.items()}
        try:
            results = self.functions[signature](**tensors)
        except tf.errors.OpError as error:
            log.error("signature %r failed: %s", signature, error)
            message = f"The model failed on this request ({type(error).__name__})."
            raise ServingError("INTERNAL", message) from error
        return {name: results[name].numpy() for name in outputs or results}

    def _check_names(self, signature, inputs, outputs):
        expected = self.specs_of(signature).keys()
        if inputs.keys() != expected:
            given = ", ".join(sorted(inputs)) or "none"
            message = f"Signature {signature!r} takes the inputs {', '.join(sorted(expected))}"
            raise ServingError("INVALID_ARGUMENT", f"{message}; got {given}.")
        known = self.functions[signature].structured_outputs
        unknown = [name for name in outputs if name not in known]
        if unknown or len(set(outputs)) < len(outputs):
            message = f"Signature {signature!r} gives {', '.join(sorted(known))}, each once"
            raise ServingError("INVALID_ARGUMENT", f"{message}; asked for {', '.join(outputs)}.")

    def specs_of(self, signature):
        """The inputs of a signature: `TensorSpec`s by name."""
        if signature not in self.specs:
            message = f'Serving signature name: "{signature}" not found: this model has '
            raise ServingError("INVALID_ARGUMENT", message + ", ".join(sorted(self.specs)) + ".")
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
            raise ServingError("INVALID_ARGUMENT", message)
        if shape[0] > self.max_batch:
            message = (
                f"Input {name!r} has {shape[0]} rows; this server takes {self.max_batch} at most."
            )
            raise ServingError("INVALID_ARGUMENT", message)
        return shape[0]

    def _tensor(self, signature, name, array):
        expected = self.specs[signature][name].dtype
        if array.dtype != expected.as_numpy_dtype:
            message = f"Input {name!r} must be {expected.name}; got {array.dtype}."
            raise ServingError("INVALID_ARGUMENT", message)
        if expected.is_floating and not np.isfinite(array).all():
            message = f"Input {name!r} holds NaN or infinity."
            raise ServingError("INVALID_ARGUMENT", message)
        return tf.constant(array)


def load(path, max_batch):
    """Load a version and run its warm-up requests, so that no request is the first.

    Raises:
        OSError, ValueError, tf.errors.OpError, ...: it is no SavedModel that this TensorFlow loads.
    """
    servable = Servable(path, max_batch)
    for request in warmup_requests(path):
        signature = request.model_spec.signature_name
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        if signature in servable.functions and len(next(iter(inputs.values()))) <= max_batch:
            servable.predict(signature, inputs)
    return servable
