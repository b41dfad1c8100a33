"""The fields of a protobuf message, seen before it is parsed: an empty one takes two bytes, parsed a hundred.

Source: protobuf.dev/programming-guides/encoding.
"""

from vae_tf.serving.status import invalid_argument

FEW = 64  # fields of a message, but for the strings of a tensor
_STRUCTS = {14, 15}  # of a tensor: handles to resources and variants, which no request can give
_BYTES, _VARINT, _FIXED = 2, 0, {1: 8, 5: 4}


def fields(data, most=FEW):
    """`[(number, content)]` of a message; of a number, no content.

    Raises:
        ServingError: it is no message, or has more than `most` fields.
    """
    data, at, found = memoryview(data), 0, []
    while at < len(data):
        if len(found) == most:
            raise invalid_argument(f"The request has a message of more than {most} fields.")
        tag, at = _varint(data, at)
        kind, content = tag & 7, None
        if kind == _BYTES:
            size, at = _varint(data, at)
            content, at = data[at : at + size], at + size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise _malformed()
        found.append((tag >> 3, content))
    if at > len(data):
        raise _malformed()
    return found


def parsed(kind, data):
    """The message of a class.

    Raises:
        ServingError: it is none.
    """
    try:
        return kind.FromString(bytes(data))
    except Exception as error:  # DecodeError, of one of two modules
        raise _malformed() from error


def check_predict(data, most):
    """Refuse a `PredictRequest` that would take far more memory than its bytes.

    Args:
        most: rows, and so strings, that a tensor may have.
    """
    for entry in _messages(data, 2):
        for tensor in _messages(entry, 2):
            parts = fields(tensor, FEW + most)
            if not _STRUCTS.isdisjoint(number for number, _ in parts):
                raise invalid_argument("An input must be a tensor of numbers or strings.")
            for shape in (content for number, content in parts if number == 2 and content):
                fields(shape)


def _messages(data, number):
    """The messages that are its field of that number."""
    return [content for found, content in fields(data) if found == number and content is not None]


def _varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _malformed()
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _malformed():
    return invalid_argument("The request is no message of this method.")
