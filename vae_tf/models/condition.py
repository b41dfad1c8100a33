"""What a model is told of an image beside its pixels."""

import dataclasses

import numpy as np
from keras import ops

from vae_tf.errors import InvalidTypeError, check_positive_int, invalid
from vae_tf.models.arrays import array, is_tensor

# Arguments of the calls that a condition goes with, in Python and of a server.
TAKEN = {"x", "z", "num", "seed", "seeds", "images", "start", "end", "batch_size", "num_samples"}
TAKEN |= {"training", "path", "trust_model"}


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a model is told of each image beside its pixels: a label, or any array.

    Args:
        name: of the keyword in Python, and of the input of an exported model.
        shape: of one image's condition; `()` for a label.
        dtype: "int64" for labels.
        num_classes: labels are 0 to num_classes − 1; None leaves them unchecked.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.
    """

    name: str = "label"
    shape: tuple = ()
    dtype: str = "int64"
    num_classes: int | None = None

    def __post_init__(self):
        if not str(self.name).isidentifier() or self.name in TAKEN:
            expected = f"a name that can be a keyword, other than {', '.join(sorted(TAKEN))}"
            raise invalid("condition", expected, repr(self.name))
        sizes = (self.shape,) if hasattr(self.shape, "__index__") else self.shape
        shape = tuple(check_positive_int("condition", size) for size in sizes)
        object.__setattr__(self, "shape", shape)  # JSON has lists
        if self.num_classes is None:
            return
        check_positive_int("num_classes", self.num_classes)
        if shape or "int" not in self.dtype:
            expected = "None, where the condition is not one integer for each image"
            received = f"num_classes={self.num_classes} of {self.dtype} of shape {shape}"
            raise invalid("num_classes", expected, received)

    @property
    def values(self):
        """What it may be, in words."""
        if self.num_classes is not None:
            return f"labels from 0 to {self.num_classes - 1}"
        return f"{self.dtype} of shape {('batch', *self.shape)}"

    def checked(self, value, argument="y"):
        """Conditions of a batch, `(batch, *shape)`, in their type; tensors stay tensors.

        Raises:
            ValueError, TypeError: they are missing, or are not what the model takes.
        """
        expected = f"{self.name} ({self.values}), for this model has a condition"
        if value is None:
            raise invalid(argument, expected, "None")
        known = not is_tensor(value) or hasattr(value, "numpy")
        if known:
            self._check(_as_array(value, argument), argument, expected, is_tensor(value))
        elif self.shape == () and len(value.shape) == 2:
            raise self._rows_refused(value, argument, in_set=True)
        return ops.cast(value, self.dtype) if is_tensor(value) else np.asarray(value, self.dtype)

    def _check(self, value, argument, expected, in_set):
        """Raise unless an array holds what the model takes."""
        if self.shape == () and value.ndim == 2:
            raise self._rows_refused(value, argument, in_set)
        if value.dtype.kind not in ("buif" if "float" in self.dtype else "bui"):
            received = f"values of {value.dtype}"
            raise invalid(argument, expected, received, kind=InvalidTypeError)
        if value.shape[1:] != self.shape or not value.size:
            raise invalid(argument, expected, f"shape {value.shape}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise invalid(argument, f"{expected}, of finite values", "NaN or infinity")
        if self.num_classes and not (value.min() >= 0 and value.max() < self.num_classes):
            wrong = np.unique(value[(value < 0) | (value >= self.num_classes)])[:5]
            raise invalid(argument, self.values, ", ".join(map(str, wrong)))

    def _rows_refused(self, value, argument, in_set):
        """The error for rows where a label is a number: one-hot ones, for example."""
        numbers = "y.argmax(axis=-1)"
        if in_set:
            numbers = "dataset.map(lambda x, y: (x, tf.argmax(y, axis=-1)))"
        expected = f"{self.name} of shape ('batch',), the number of its class for each image"
        received = f"rows, of shape {tuple(value.shape)}"
        hint = f"One-hot rows become numbers by {numbers}; a column by y[:, 0]."
        return invalid(argument, expected, received, hint)

    def rows(self, value, num):
        """`num` rows of one condition for all, or of one for each."""
        if value is not None:
            given = _as_array(value, self.name)
            value = np.repeat(given[None], num, axis=0) if given.shape == self.shape else value
        value = self.checked(value, self.name)
        if len(value) != num:
            raise invalid(self.name, f"one for all, or one for each of {num} rows", len(value))
        return value


def _as_array(value, argument):
    """What a user gives as a condition, as an array of numbers."""
    whole = is_tensor(value) and "int" in str(value.dtype)
    return array(ops.convert_to_numpy(value) if whole else value, argument)
