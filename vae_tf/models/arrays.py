"""Where arrays become tensors, and tensors arrays: at the edge of a model."""

import contextlib
import functools

import keras
import numpy as np
from keras import ops

from vae_tf import layers
from vae_tf.errors import check_positive_int


def is_tensor(x):
    """Whether `x` is a tensor, symbolic ones too."""
    return keras.ops.is_tensor(x) or isinstance(x, keras.KerasTensor)


def first(code):
    """The code of what `encode` gives."""
    return code[0] if isinstance(code, (tuple, list)) else code


def concatenated(function, arrays, batch_size):
    """`function` on batches of arrays, as tensors; its results as one array of float32."""
    batch_size = check_positive_int("batch_size", batch_size)
    starts = range(0, len(arrays[0]), batch_size)
    parts = [[ops.convert_to_tensor(a[i : i + batch_size]) for a in arrays] for i in starts]
    return np.concatenate([ops.convert_to_numpy(ops.cast(function(*p), "float32")) for p in parts])


def from_arrays(method):
    """Let a method that is written for tensors take arrays, and give arrays for them.

    What comes from outside a model is checked here: images, codes and conditions. `seed` fixes the
    draws of a method that draws.
    """
    of_codes, counted = method.__name__ == "decode", method.__name__ == "log_weights"

    @functools.wraps(method)
    def wrapper(self, value, *rest, seed=None):
        if is_tensor(value) and seed is None:
            return method(self, value if of_codes else self.to_floats(value), *rest)
        self.assert_built(method.__name__)
        value = ops.convert_to_tensor(value if of_codes else self.checked(value))
        value = ops.cast(value, "float32") if of_codes else self.to_floats(value)
        numbers, conditions = (rest[:1], rest[1:]) if counted else ((), rest)
        rows = self.condition_rows(*(conditions or (None,)), len(value))
        source = contextlib.nullcontext()
        if seed is not None:
            seed = check_positive_int("seed", seed, minimum=0)
            source = layers.drawing(layers.PerImage(seed, ops.arange(len(value))))
        with source:
            result = method(self, value, *numbers, *map(ops.convert_to_tensor, rows))
        return keras.tree.map_structure(_to_numpy, result)

    return wrapper


def _to_numpy(value):
    """NumPy for tensors: float32 for shorter floats, which NumPy knows little of."""
    if not ops.is_tensor(value):
        return value
    short = keras.backend.standardize_dtype(value.dtype) in ("bfloat16", "float16")
    return ops.convert_to_numpy(ops.cast(value, "float32") if short else value)
