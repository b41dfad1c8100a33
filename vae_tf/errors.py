"""Errors that name the argument, what was expected, what was received, and what to do."""

import contextlib
import contextvars
import math
import numbers
import os
import pathlib
import sys
import warnings

_in_a_shell = contextvars.ContextVar("in_a_shell", default=False)


class InvalidValueError(ValueError):
    """An argument whose value cannot be used. The command line prints it and exits with 2."""


class InvalidTypeError(TypeError):
    """An argument of a type that cannot be used. The command line prints it and exits with 2."""


class CollapseWarning(UserWarning):
    """Latent dimensions carry nothing, and the model may be less than it could be."""


class PriorMismatchWarning(UserWarning):
    """The codes of the images lie elsewhere than draws from the prior: what is generated suffers."""


class OldPriorWarning(UserWarning):
    """A model is trained further, and its prior is of the codes that it gave before."""


class GreyValuesWarning(UserWarning):
    """Images are outside the likelihood's support, such as grey values of a Bernoulli's."""


def invalid(argument, expected, received, hint="", kind=InvalidValueError):
    """Build the error for `argument`; the caller raises it.

    >>> str(invalid("latent_dim", "a positive integer", "latent_dim=0"))
    "Invalid value for argument 'latent_dim': expected a positive integer. Received: latent_dim=0."
    """
    noun = "type" if kind is InvalidTypeError else "value"
    message = (
        f"Invalid {noun} for argument '{argument}': expected {expected}. Received: {received}."
    )
    lines = f"{message} {hint}".rstrip().split("\n")
    return kind("\n".join(map(printable, lines)))


def printable(text):
    r"""`text` with its control characters written out, which a terminal would obey, and what is no UTF-8.

    >>> print(printable("a\x1b[31m.png"))
    a\x1b[31m.png
    """
    written = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(written)


@contextlib.contextmanager
def only_from(level, logger):
    """In the block, a logger keeps back what is below a level, such as "WARNING"."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def in_a_shell():
    """In the block, messages name options of the command, and not arguments of Python."""
    token = _in_a_shell.set(True)
    try:
        yield
    finally:
        _in_a_shell.reset(token)


def as_typed(name, value):
    """An argument as the user types it: `--resize 64` or `--cors` in a shell, and in Python

    >>> as_typed("resize", 64)
    'resize=64'
    """
    option = "--" + name.replace("_", "-")
    typed = option if value is True else f"{option} {value}"
    return typed if _in_a_shell.get() else f"{name}={value!r}"


def warn(message, kind):
    """Warn at the line outside of this package that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("vae_tf."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=level)


def check_choice(argument, value, choices):
    """Return `value`, or raise if it is none of the `choices`."""
    if value not in tuple(choices):
        raise invalid(argument, " or ".join(map(repr, choices)), f"{argument}={value!r}")
    return value


def check_new_path(argument, path):
    """Return `path` as a `Path`, or raise if it is below a file, or below what cannot be written to."""
    path = pathlib.Path(path)
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise invalid(argument, "a path through directories", f"{str(path)!r}, below a file")
    if not os.access(nearest, os.W_OK):
        received = f"{str(path)!r}, below {str(nearest)!r}, which is not"
        raise invalid(argument, "a path in a directory that can be written to", received)
    return path


def check_positive_int(argument, value, minimum=1):
    """Return `value` as an int, or raise if it is not an integer of at least `minimum`."""
    expected = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise invalid(argument, expected, f"{argument}={value!r}", kind=InvalidTypeError)
    if value < minimum:
        raise invalid(argument, expected, f"{argument}={value!r}")
    return value.__index__()


def check_non_negative(argument, value, above=False):
    """Return `value`, or raise if it is not a finite number of at least (or `above`) zero."""
    expected = "a positive number" if above else "a number of at least 0"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise invalid(argument, expected, f"{argument}={value!r}", kind=InvalidTypeError)
    if not 0 <= value < math.inf or (above and value == 0):
        raise invalid(argument, expected, f"{argument}={value!r}")
    return value
