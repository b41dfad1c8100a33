"""Where arrays become tensors, and tensors arrays: at the edge of a model."""

import contextlib
import functools
import inspect
import math

import keras
import numpy as np
from keras import ops

from vae_tf import layers
from vae_tf.errors import InvalidTypeError, check_positive_int, invalid


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


def taken_condition(model, method, parameters, named):
    """Take the condition out of a call's keywords, where it is `condition` or has its own name.

    Args:
        model: whose method is called.
        method, parameters: its name, and its parameters by name.
        named: the keywords of the call.

    Returns:
        `(value,)`, or `()` where none is among them.

    Raises:
        TypeError: there are two, or a keyword is not known.
    """
    own = None if model.condition is None else model.condition.name
    given = [named.pop(name) for name in dict.fromkeys(("condition", own)) if name in named]
    if len(given) > 1:
        raise invalid(own, "it, or `condition`, and not both", "both", kind=InvalidTypeError)
    unknown = sorted(named.keys() - parameters.keys())
    if unknown and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        name, cls = unknown[0], type(model).__name__
        words = f"The condition of this {cls} is '{own}'." if own else f"A {cls} has no condition."
        others = [p for p in parameters if p not in ("self", "condition")]
        expected = f"an argument of `{method}`: {', '.join([*others, *([own] if own else [])])}"
        shape = np.shape(named[name])
        received = f"{name} of shape {shape}" if shape else f"{name}={named[name]!r}"
        raise invalid(name, expected, received, words, kind=InvalidTypeError)
    return tuple(given)


def condition_by_name(method):
    """Let the `condition` of a call be given by its own name too: `generate(4, label=3)`."""
    parameters = inspect.signature(method).parameters

    @functools.wraps(method)
    def wrapper(self, *args, **named):
        for value in taken_condition(self, method.__name__, parameters, named):
            named["condition"] = value
        return method(self, *args, **named)

    return wrapper


def from_arrays(method):
    """Let a method that is written for tensors take arrays, and give arrays for them.

    What comes from outside a model is checked here: images, codes and conditions, which may be given
    by name. `seed` fixes the draws of a method that draws.
    """
    of_codes, counted = method.__name__ == "decode", method.__name__ == "log_weights"
    signature = inspect.signature(method)

    def on_tensors(self, value, rest, named):
        try:
            return method(self, value if of_codes else self.to_floats(value), *rest, **named)
        except (AttributeError, TypeError, ValueError):
            if not self._building:
                self.assert_built(method.__name__)  # if that is why
            raise

    @functools.wraps(method)
    def wrapper(self, *args, seed=None, **named):
        condition = taken_condition(self, method.__name__, signature.parameters, named)
        bound = signature.bind_partial(
            self, *args, **named
        )  # a condition that is missing is told below
        if len(bound.args) < 2 + counted:
            return method(*bound.args, **bound.kwargs)  # Python's own error
        value, *rest = (*bound.args[1:], *condition)
        if is_tensor(value) and seed is None:
            return on_tensors(self, value, rest, bound.kwargs)
        self.assert_built(method.__name__)
        value = ops.convert_to_tensor(
            self.checked_codes(value) if of_codes else self.checked(value)
        )
        value = value if of_codes else self.to_floats(value)
        numbers, conditions = (rest[:1], rest[1:]) if counted else ((), rest)
        if len(conditions) > 1:
            raise invalid("condition", "one", f"{len(conditions)}", kind=InvalidTypeError)
        rows = self.condition_rows(*(conditions or (None,)), len(value))
        source = contextlib.nullcontext()
        if seed is not None:
            seed = check_positive_int("seed", seed, minimum=0)
            source = layers.drawing(layers.PerImage(seed, ops.arange(len(value))))
        with source:
            conditions = map(ops.convert_to_tensor, rows)
            result = method(self, value, *numbers, *conditions, **bound.kwargs)
        return keras.tree.map_structure(_to_numpy, result)

    return wrapper


def array(value, argument):
    """What a user gives as an array of numbers, or the error that says what it is."""
    try:
        value = np.asarray(ops.cast(value, "float32") if is_tensor(value) else value)
    except ValueError as error:
        raise invalid(argument, "an array of numbers", "rows of different lengths") from error
    if value.dtype.kind not in "buif":
        found = f"dtype {value.dtype}"
        raise invalid(argument, "an array of numbers", found, kind=InvalidTypeError)
    return value


def check_codes(z, latent_shape):
    """Codes as float32 `(N, *latent_shape)`, or the error that says what is wrong with them.

    Args:
        z: from a user.
        latent_shape: of one code, or None where the model does not say it.
    """
    codes = array(z, "z")
    if latent_shape is not None and codes.shape[1:] != tuple(latent_shape):
        raise invalid(
            "z", f"codes of shape {rows_of(latent_shape)}", *_other_codes(codes, latent_shape)
        )
    if codes.size == 0:
        raise invalid("z", "at least one code", f"an empty array of shape {codes.shape}")
    with np.errstate(over="ignore"):
        floats = codes.astype("float32")
    if not np.isfinite(floats).all():
        wrong = (~np.isfinite(floats)).reshape(len(floats), -1).any(axis=1)
        found = f"NaN, or values beyond float32, in {wrong.sum()} of {len(floats)} codes"
        raise invalid("z", "finite values", found)
    return floats


def _other_codes(codes, latent_shape):
    """What codes of another shape are, and what mends it."""
    received, latent_shape = f"shape {codes.shape}", tuple(latent_shape)
    if codes.shape == latent_shape:
        return received, "One code alone is z[None]."
    if codes.shape[2:] == latent_shape and codes.shape[0] == 2:
        return (
            received,
            "What `encode` gives is (z_mean, z_log_var): the code is its first element.",
        )
    return received, ""


def rows_of(shape):
    """`(N, *shape)` in words.

    >>> rows_of((8, 8))
    '(N, 8, 8)'
    """
    return f"({', '.join(map(str, ('N', *shape)))})"


def shape_hint(shape, wanted, argument):
    """What brings images of another shape to `(N, *wanted)`, where nothing has to be guessed."""
    if shape == wanted:
        return f"One image alone is {argument}[None]."
    if _long(shape) == _long(wanted):
        return f"One image alone is {argument}.reshape{(1, *wanted)}."
    size = math.prod(wanted)
    flat = len(wanted) == 1 or len(shape) == 2
    if _long(shape[1:]) == _long(wanted) or (flat and math.prod(shape[1:]) == size):
        return f"{argument}.reshape{(-1, *wanted)} has it."
    return ""


def _long(shape):
    """A shape without the axes of length 1."""
    return [length for length in shape if length != 1]


def _to_numpy(value):
    """NumPy for tensors: float32 for shorter floats, which NumPy knows little of."""
    if not ops.is_tensor(value):
        return value
    short = keras.backend.standardize_dtype(value.dtype) in ("bfloat16", "float16")
    return ops.convert_to_numpy(ops.cast(value, "float32") if short else value)
