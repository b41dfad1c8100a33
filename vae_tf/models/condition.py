"""What a model is told of an image beside its pixels."""

import dataclasses

import numpy as np
from keras import ops

from vae_tf.errors import InvalidTypeError, invalid
from vae_tf.models.arrays import is_tensor


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a model is told of each image beside its pixels: a label, or any array.

    Args:
        name: of the input of an exported model.
        shape: of one image's condition; `()` for a label.
        dtype: "int64" for labels.
        num_classes: labels are from 0 to this, exclusive; None leaves them unchecked.
    """

    name: str = "label"
    shape: tuple = ()
    dtype: str = "int64"
    num_classes: int | None = None

    def checked(self, value, argument="y"):
        """Conditions of a batch, `(batch, *shape)`; arrays are checked, tensors are cast.

        Raises:
            ValueError, TypeError: they are missing, or are not what the model takes.
        """
        expected = f"{self.name} of shape {('batch', *self.shape)}, for this model has a condition"
        if value is None:
            raise invalid(argument, expected, "None")
        if is_tensor(value):
            numbers = "dataset.map(lambda x, y: (x, tf.argmax(y, axis=-1)))"
            self._check_no_rows(value, argument, numbers)
            return ops.cast(value, self.dtype)
        value = np.asarray(value)
        self._check_no_rows(value, argument, "y.argmax(axis=-1)")
        if value.dtype.kind not in ("buif" if "float" in self.dtype else "bui"):
            found = f"values of {value.dtype}"
            raise invalid(argument, f"{self.name} of {self.dtype}", found, kind=InvalidTypeError)
        if value.shape[1:] != tuple(self.shape) or not value.ndim:
            raise invalid(argument, expected, f"shape {value.shape}")
        if self.num_classes and not (value.min() >= 0 and value.max() < self.num_classes):
            found = f"values from {value.min()} to {value.max()}"
            raise invalid(argument, f"labels from 0 to {self.num_classes - 1}", found)
        return value.astype(self.dtype)

    def _check_no_rows(self, value, argument, numbers):
        """Refuse rows where a label is a number: one-hot ones, for example."""
        if self.shape == () and value.ndim == 2:
            expected = f"{self.name} of shape ('batch',), the number of its class for each image"
            received = f"rows, of shape {tuple(value.shape)}"
            hint = f"One-hot rows become numbers by {numbers}; a column by y[:, 0]."
            raise invalid(argument, expected, received, hint)

    def rows(self, value, num):
        """`num` rows of one condition for all, or of one for each."""
        if value is not None and np.shape(value) == tuple(self.shape):
            value = np.repeat(np.asarray(value)[None], num, axis=0)
        value = self.checked(value, self.name)
        if len(value) != num:
            raise invalid(self.name, f"one for all, or one for each of {num} rows", len(value))
        return value
