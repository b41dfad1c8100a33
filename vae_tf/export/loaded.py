"""A SavedModel that is run: arrays by name into a signature, arrays by name out of it."""

import tensorflow as tf

from vae_tf.errors import InvalidValueError, invalid
from vae_tf.export.graph import failed_assertion
from vae_tf.export.operations import check_operations
from vae_tf.export.versions import check_saved_model
from vae_tf.models.condition import Condition


class Loaded:
    """The signatures of a SavedModel.

    Args:
        path: a SavedModel, or a directory of versions, whose newest is taken.
        trust_model: run it whatever its operations are; see `vae_tf.export.operations`.

    Raises:
        ValueError: there is no SavedModel, or it has operations that are not allowed.
    """

    def __init__(self, path, trust_model=False):
        self.path = check_saved_model(path)
        check_operations(self.path, trust_model)
        self.signatures = tf.saved_model.load(str(self.path)).signatures

    def inputs(self, signature):
        """The `tf.TensorSpec` of each input by name."""
        return dict(self.signatures[signature].structured_input_signature[1])

    def check_has(self, signature):
        if signature not in self.signatures:
            expected = f"a SavedModel with the signature '{signature}'"
            raise invalid("path", expected, f"{str(self.path)!r} with {sorted(self.signatures)}")

    def conditions(self, signature, inputs):
        """What a signature takes beside `inputs`: a list of `Condition`s, empty or of one."""
        return [
            Condition(name, tuple(spec.shape[1:]), spec.dtype.name)
            for name, spec in self.inputs(signature).items()
            if name not in inputs
        ]

    def call(self, signature, columns):
        """The outputs by name, NumPy, for inputs by name, which are brought to their types.

        Raises:
            ValueError: the graph itself refuses an input, such as a label that does not exist.
        """
        specs = self.inputs(signature)
        tensors = {name: tf.constant(columns[name], spec.dtype) for name, spec in specs.items()}
        try:
            outputs = self.signatures[signature](**tensors)
        except tf.errors.InvalidArgumentError as error:
            if (words := failed_assertion(error)) is None:
                raise
            raise InvalidValueError(words) from error
        return {name: output.numpy() for name, output in outputs.items()}
