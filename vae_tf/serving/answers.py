"""What a server answers, checked before it is used: a server may be broken, or mean harm."""

import base64
import contextlib
import json
import math
import re
import reprlib
import zlib

import numpy as np

from vae_tf import memory
from vae_tf.errors import printable
from vae_tf.serving.status import ServingError

ANSWER_BYTES = 64 * 2**20  # as Python's lists a text can take 20 times as much
PART = 2**16  # bytes that are read at a time
# What the signatures give (vae_tf/export/signatures.py): finite float32, but for the files.
OUTPUTS = {
    "decode": ("probabilities",),
    "generate": ("images", "z"),
    "generate_png": ("png_bytes",),
    "encode": ("z_mean", "z_log_var"),  # or the code alone, where the posterior is not Gaussian
    "reconstruct": ("images",),
    "score": ("elbo",),
}
_ONE_A_ROW = ("png_bytes", "elbo")
_FLAWS = (
    *(ArithmeticError, LookupError, MemoryError, RecursionError, StopIteration),
    *(TypeError, ValueError, zlib.error),
)
_TOO_LARGE = re.compile(
    r"message\b.*\b(larger|large|exceed)|(larger|large|exceed).*\bmessage", re.I
)


@contextlib.contextmanager
def reading(address):
    """Within the block whatever is wrong with the answer of `address` becomes a `ServingError`."""
    try:
        yield
    except _FLAWS as error:
        what = said(error, 300).rstrip(".") or type(error).__name__
        raise ServingError("UNKNOWN", f"The answer of {address} cannot be used: {what}.") from error


def unlike(expected, received):
    """The error for an answer that is not what was expected."""
    return ValueError(f"expected {expected}. Received: {received}")


def too_long(most):
    """The error for an answer of more than `most` bytes."""
    hint = "Ask for fewer rows at a time (batch_size), or allow more (answer_bytes)"
    return ValueError(f"it is longer than {memory.words(most)}. {hint}")


def said(words, most=1000):
    """A server's words: not too many, and none that steer a terminal."""
    return "\n".join(map(printable, str(words)[:most].split("\n")))


def refusal(code, words):
    """The error that a server answers with.

    gRPC has one code for a message that is too large and for an overload; only the second may pass.
    """
    words = said(words)
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(words):
        code = "INVALID_ARGUMENT"
    return ServingError(code, words)


# From bytes to arrays.


def read_body(read, encoding, most):
    """The bytes of an answer, or raise where they are more than `most`, as they come or decoded.

    Args:
        read: `read(size)` gives the next bytes; none at the end.
        encoding: Content-Encoding. None is asked for, but some proxies send gzip all the same.
    """
    if encoding not in ("", "identity", "gzip"):
        raise unlike("an answer without a Content-Encoding, or gzip", repr(encoding))
    whole = bytearray()
    for part in _unzipped(read) if encoding == "gzip" else iter(lambda: read(PART), b""):
        whole += part
        if len(whole) > most:
            raise too_long(most)
    return whole


def _unzipped(read):
    decoder = zlib.decompressobj(wbits=31)
    while part := read(PART):
        while part and not decoder.eof:
            yield decoder.decompress(part, PART)
            part = decoder.unconsumed_tail
    yield decoder.flush()


def parsed(text):
    """The object that an answer's JSON holds."""
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise unlike("JSON", repr(text[:200].decode(errors="replace"))) from error
    if not isinstance(answer, dict):
        raise unlike("a JSON object", reprlib.repr(answer))
    return answer


def field(answer, name):
    """What a JSON object has under a name."""
    if not isinstance(answer, dict) or name not in answer:
        raise unlike(repr(name), reprlib.repr(answer))
    return answer[name]


def from_json(answer, rows):
    """The arrays of an answer's outputs, by name; "" is the name of one alone."""
    outputs = field(answer, "outputs")
    columns = outputs if isinstance(outputs, dict) else {"": outputs}
    return {name: _column(name, column, rows) for name, column in columns.items()}


def _column(name, column, rows):
    what = repr(name) if name else "its output"
    if not isinstance(column, list) or len(column) != rows:
        count = f"{len(column)} rows" if isinstance(column, list) else reprlib.repr(column)
        raise unlike(f"{rows} rows of {what}", count)
    values = np.array(column, object)  # of texts NumPy would make each as long as the longest
    kinds = set(map(type, values.flat))
    if kinds <= {int, float}:
        with np.errstate(over="ignore"):  # what becomes infinite is found later
            return values.astype("float32")
    if kinds == {dict} and values.ndim == 1:
        return _files(column)
    found = ", ".join(sorted(kind.__name__ for kind in kinds - {int, float}))
    raise unlike(f"numbers in {what}, in lists of one length", found)


def _files(column):
    array = np.empty(len(column), object)
    array[:] = [base64.b64decode(field(value, "b64"), validate=True) for value in column]
    return array


def from_tensors(tensors, read, rows, most):
    """The arrays of `TensorProto`s by name, made by `read`.

    Sizes are looked at first: in a few bytes a tensor can stand for many equal numbers.
    """
    for name, tensor in tensors.items():
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        if min(shape, default=0) < 0 or shape[:1] != [rows]:
            raise unlike(f"{rows} rows of {name!r}", f"shape {tuple(shape)}")
        if math.prod(shape) > most // 4:
            raise too_long(most)
    return {name: read(tensor) for name, tensor in tensors.items()}


def from_states(pairs):
    """The states by version that an answer gives as pairs."""
    states = {int(str(version)): state for version, state in pairs}
    if not all(isinstance(state, str) for state in states.values()):
        raise unlike("a state by its name for each version", reprlib.repr(states))
    return states


# What it should be.


def some(outputs):
    """The outputs, or raise if there are none."""
    if not outputs:
        raise unlike("an output", "none")
    return outputs


def named(signature, outputs):
    """The outputs of a signature, by the names that it has for them; the one that there is has any."""
    names = OUTPUTS[signature]
    if signature == "encode" and [*outputs] in ([""], ["z"]):
        names = ("z",)
    if len(outputs) == len(names) == 1:
        return {names[0]: next(iter(outputs.values()))}
    if missing := [name for name in names if name not in outputs]:
        given = ", ".join(name or "one without a name" for name in outputs) or "none"
        raise unlike(f"the outputs {', '.join(names)}", f"{given}, without {', '.join(missing)}")
    return {name: outputs[name] for name in names}


def check_values(outputs, row_shape=None):
    """Raise unless named outputs are finite float32, or files, of the shapes that they should have.

    Args:
        outputs: arrays by name.
        row_shape: of one image, where it is known.
    """
    for name, array in outputs.items():
        row = () if name in _ONE_A_ROW else row_shape
        if name == "z_log_var":
            row = outputs["z_mean"].shape[1:]
        kind = "files" if name == "png_bytes" else "finite float32"
        shape = ", ".join(["rows", *(("...",) if row is None else map(str, row))])
        expected = f"{name!r} to be {kind} of shape ({shape})"
        if array.shape[1:] != row if row is not None else array.ndim < 2 or not array.size:
            raise unlike(expected, f"shape {array.shape}")
        if found := _unfit(array, kind):
            raise unlike(expected, found)


def _unfit(array, kind):
    """What is in an array that should not be; nothing where all is well."""
    if kind == "files":
        return "" if all(isinstance(value, bytes) for value in array) else str(array.dtype)
    if array.dtype != np.float32:
        return str(array.dtype)
    odd = array.size - np.isfinite(array).sum()
    return f"{odd} of {array.size} numbers NaN or infinite" if odd else ""


def check_like(outputs, like):
    """Raise unless outputs have the names, types and shapes of another answer's."""
    for name, array in like.items():
        part = outputs.get(name)
        if part is None or part.shape[1:] != array.shape[1:] or part.dtype != array.dtype:
            found = "none" if part is None else f"rows {part.shape[1:]} of {part.dtype}"
            expected = f"{name!r} as in the first answer, rows {array.shape[1:]} of {array.dtype}"
            raise unlike(expected, found)
