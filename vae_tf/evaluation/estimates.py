"""Means with their errors; what an estimator is given, checked and cut into batches."""

import dataclasses
import math

import numpy as np

from vae_tf.errors import InvalidTypeError, check_positive_int, invalid

ROWS = 1000  # images, or codes, that a network takes at once: what the processor's caches hold


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over images and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def over(cls, values):
        """Of one value an image; the error of a single one, or of infinite ones, is not known."""
        values = np.asarray(values, np.float64)
        known = len(values) > 1 and np.isfinite(values).all()
        error = values.std(ddof=1) / math.sqrt(len(values)) if known else math.nan
        return cls(float(values.mean()), float(error))

    def scaled(self, factor):
        """Of the values times a number, such as another unit's."""
        return Estimate(self.mean * factor, self.standard_error * abs(factor))

    def __str__(self):
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2f}"
        return f"{self.mean:.2f}{error}"


def check_method(model, name, why):
    """Raise if a model lacks one of the contract's methods that it may lack."""
    if getattr(model, name, None) is None:
        expected = f"a model with `{name}`, {why}"
        raise invalid("model", expected, type(model).__name__, kind=InvalidTypeError)


def check_seed(seed):
    """Return a seed that fits into the key of the noise."""
    if check_positive_int("seed", seed, minimum=0) >= 2**63:
        raise invalid("seed", "an integer below 2**63", f"seed={seed}")
    return seed


def checked(model, x, condition=None):
    """Images as the model takes them, and the tuple of its conditions, which is empty without any.

    Raises:
        ValueError, TypeError: the images or the conditions do not fit the model.
    """
    model.assert_built("evaluation")
    x = model.checked(np.asarray(x))
    if model.condition is not None:
        return x, (np.asarray(model.condition.rows(condition, len(x))),)
    if condition is not None:
        expected = f"None: a {type(model).__name__} has no condition"
        raise invalid("condition", expected, "one", kind=InvalidTypeError)
    return x, ()


def batches(count, batch_size):
    """Row numbers of each batch, all of one size: the last repeats the last row."""
    for start in range(0, count, batch_size):
        yield np.minimum(np.arange(start, start + batch_size), count - 1)


def at_rows(arrays, rows):
    """The same rows of each array of a tuple."""
    return tuple(array[rows] for array in arrays)
