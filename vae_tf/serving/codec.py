"""TF Serving's JSON, row and column form, and its tensors, to and from arrays.

Source: tensorflow.org/tfx/serving/api_rest, and tensorflow/serving, tensorflow_serving/util/json_tensor.cc.
"""

import base64
import functools
import itertools
import math

import numpy as np
import orjson

from vae_tf.serving.servable import DEFAULT_SIGNATURE
from vae_tf.serving.status import invalid_argument
from vae_tf.serving.tensors import read_tensor

FEW = 1000  # brackets and commas that are no matter
LIST_BYTES, VALUE_BYTES = 88, 32  # of Python's objects
MOST_BYTES = (
    320 * 2**20
)  # that a body may take as such: any of 16 MiB whose lists have three numbers
JSON_BYTES = 16  # of a number in an answer, at most
PROTO_BYTES = 4


def read_json(body, servable):
    """`(signature, arrays by name, row form?)` of the body of a `:predict` request.

    Raises:
        ServingError: it is no JSON, or not what the signature takes.
    """
    _check_size(body, servable)
    request = _parsed(body)
    signature = _signature(request)
    specs = servable.specs_of(signature)
    rows, columns = "instances" in request, "inputs" in request
    if rows == columns:
        raise invalid_argument(
            "The request must have one of 'instances' (rows) and 'inputs' (columns)."
        )
    columns = _columns(request["instances"], specs) if rows else _named(request["inputs"], specs)
    for name, column in columns.items():
        servable.check_shape(signature, name, _first_shape(column, len(specs[name].shape)))
    arrays = {name: _array(name, column, specs[name]) for name, column in columns.items()}
    return signature, arrays, rows


def read_examples(body, servable, verb):
    """The signature that the body of a `:classify` or `:regress` request names.

    Raises:
        ServingError: it is no JSON, or has no examples.
    """
    _check_size(body, servable)
    request = _parsed(body)
    if "examples" not in request:
        message = f"When method is {verb}, key 'examples' is expected and was not found"
        raise invalid_argument(message)
    if not isinstance(request["examples"], list) or not request["examples"]:
        raise invalid_argument("Expecting 'examples' value to be a list that is not empty")
    return _signature(request)


def write_json(outputs, rows):
    """The body of the answer: bytes."""
    columns = {name: _jsonable(name, array) for name, array in outputs.items()}
    (one, *more) = columns.values()
    if not rows:
        answer = {"outputs": columns if more else one}
    elif more:
        columns = {name: list(column) for name, column in columns.items()}
        names = columns.keys()
        predictions = zip(*columns.values(), strict=True)
        answer = {"predictions": [dict(zip(names, row, strict=True)) for row in predictions]}
    else:
        answer = {"predictions": one}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def read_tensors(tensors, servable, signature, hold):
    """Arrays of a request's `TensorProto`s, by name.

    Names, types and shapes are checked first: a shape of 10^9 takes a few bytes, until it is filled.

    Args:
        hold: is told how many bytes the arrays will take.

    Raises:
        ServingError: one of them is not what the signature takes.
    """
    servable.check_names(signature, dict.fromkeys(tensors))
    specs, sizes = servable.specs_of(signature), []
    for name, tensor in tensors.items():
        if tensor.dtype != specs[name].dtype.as_datatype_enum:
            raise invalid_argument(f"Input {name!r} must be {specs[name].dtype.name}.")
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        servable.check_shape(signature, name, shape)
        sizes.append(math.prod(shape) * specs[name].dtype.size)
    hold(sum(sizes))
    return {name: _read_tensor(name, tensor) for name, tensor in tensors.items()}


def _read_tensor(name, tensor):
    try:
        return read_tensor(tensor)
    except (ValueError, TypeError, KeyError) as error:
        message = f"Input {name!r}: its values are not those of its shape and type."
        raise invalid_argument(message) from error


def _check_size(body, servable):
    """Refuse more values than a request can have, and what takes too much memory as Python's objects."""
    commas, lists = body.count(b","), body.count(b"[") + body.count(b"{")
    if max(commas, lists) > FEW + 2 * servable.most_values:
        message = f"The request has more values than {servable.max_batch} rows have, which are"
        raise invalid_argument(f"{message} what this server takes.")
    if LIST_BYTES * lists + VALUE_BYTES * commas > MOST_BYTES:
        raise invalid_argument(
            "The request has too many lists and values: send fewer rows at a time."
        )


def _parsed(body):
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        odd = next((word for word in (b"NaN", b"Infinity") if word in body), b"").decode()
        hint = f". JSON has no {odd}." if odd else ""
        raise invalid_argument(f"JSON Parse error: {error}{hint}") from error
    if not isinstance(request, dict):
        raise invalid_argument(f"The request must be a JSON object; got {_short(request)}.")
    return request


def _signature(request):
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid_argument(f"'signature_name' must be a string; got {_short(signature)}.")
    return signature or DEFAULT_SIGNATURE


def _columns(instances, specs):
    """Rows to columns: a list of values where there is one input, else of objects."""
    if not isinstance(instances, list) or not instances:
        raise invalid_argument(f"'instances' must be a list of rows; got {_short(instances)}.")
    objects = [isinstance(instance, dict) for instance in instances]
    if not any(objects):
        return _named(instances, specs)
    for number, instance in enumerate(instances):
        if not objects[number] or instance.keys() != specs.keys():
            message = f"Row {number} of 'instances' must have the keys {', '.join(sorted(specs))}"
            raise invalid_argument(f"{message}; got {_short(instance)}.")
    return {name: [instance[name] for instance in instances] for name in specs}


def _named(inputs, specs):
    """Columns by name: an object, or the values themselves where there is one input."""
    if isinstance(inputs, dict):
        if inputs.keys() == specs.keys():
            return inputs
        given = ", ".join(sorted(inputs)) or "none"
        raise invalid_argument(f"The inputs must be {', '.join(sorted(specs))}; got {given}.")
    if len(specs) > 1:
        raise invalid_argument(
            f"This signature has several inputs, by name: {', '.join(sorted(specs))}."
        )
    return {name: inputs for name in specs}


def _first_shape(column, rank):
    """The lengths of the first list on each level, down to one level more than there should be."""
    shape = []
    while isinstance(column, list) and len(shape) <= rank:
        shape.append(len(column))
        column = column[0] if column else None
    return shape


def _array(name, column, spec):
    """The array of a column whose first lists have the right lengths.

    NumPy itself would take `true` for 1, and as many bytes for each string as for the longest.
    """
    values = column
    for _ in spec.shape[1:]:
        if {*map(type, values)} - {list} or len({*map(len, values)}) > 1:
            raise invalid_argument(f"Input {name!r}: its lists are not all of one length.")
        values = [*itertools.chain.from_iterable(values)]
    kinds = {int, float} if spec.dtype.is_floating else {int} if spec.dtype.is_integer else set()
    if not kinds.issuperset(map(type, values)):
        odd = next(value for value in values if type(value) not in kinds)
        raise invalid_argument(f"Input {name!r} must hold {spec.dtype.name}; got {_short(odd)}.")
    low, high = min(values, default=0), max(values, default=0)
    least, most = _range(spec.dtype)
    if not least <= low <= high <= most:
        message = f"Cannot convert JSON value: {low if low < least else high} to"
        raise invalid_argument(f"{message} {spec.dtype.name} without loss (input {name!r}).")
    lengths = _first_shape(column, len(spec.shape))
    return np.array(values, spec.dtype.as_numpy_dtype).reshape(lengths)


@functools.cache
def _range(dtype):
    """Its least and its greatest number, as Python's: NumPy's would round what is compared with them."""
    exact = float if dtype.is_floating else int
    return exact(dtype.min), exact(dtype.max)


def _short(value):
    try:
        text = orjson.dumps(value).decode() if not isinstance(value, float) else repr(value)
    except orjson.JSONEncodeError:
        return "something nested too deep"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _jsonable(name, array):
    if array.dtype.kind not in "OS":
        return np.ascontiguousarray(array)
    values = array.ravel()
    if name.endswith("_bytes"):
        texts = [{"b64": base64.b64encode(value).decode()} for value in values]
    else:
        texts = [value.decode(errors="replace") for value in values]
    for size in reversed(array.shape[1:]):
        texts = [texts[i : i + size] for i in range(0, math.prod(array.shape), size)]
    return texts
