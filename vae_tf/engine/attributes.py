"""What a checkpoint keeps of callbacks: their plain attributes, and how they come back."""

import json
import numbers

import numpy as np

from vae_tf.errors import InvalidValueError

NOT_STATE = ("params", "model", "_model")  # attributes of every callback
STATE = (None, float, list, dict, np.ndarray)  # kinds of those that are kept


def found(callback, given, arrays):
    """What JSON can hold of a callback: counters, bests, records; no texts, which may be paths.

    Args:
        callback: the callback.
        given: its attributes before training. Arrays that were there then, such as images, are left out.
        arrays: a list, to which the other arrays are added, such as the best weights.
    """
    kept = {}
    for name, value in vars(callback).items():
        if name in NOT_STATE or isinstance(value, str):
            continue
        try:
            kept[name] = _as_json(value, None if value is given.get(name) else arrays)
        except (TypeError, ValueError):
            continue
    return kept


def _as_json(value, arrays):
    own = []

    def convert(item):
        if isinstance(item, np.generic):
            return item.item()
        if arrays is None or not isinstance(item, np.ndarray):
            raise TypeError
        own.append(item)
        return {"array": len(arrays) + len(own) - 1}

    if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
        value = [np.asarray(v) if isinstance(v, np.generic) else v for v in value]  # weights
    value = json.loads(json.dumps(value, default=convert))
    if own:
        arrays += own
    return value


def bring_back(callback, saved, arrays, directory):
    """Set what `found` gave, where it is of the kind that the callback has there."""
    for name, value in saved.items():
        value = _with_arrays(value, arrays)
        now = vars(callback).get(name, getattr(type(callback), name, None))
        same = _kind(now) in (None, _kind(value)) or (value is None and _kind(now) in STATE)
        if name in NOT_STATE or _kind(value) not in STATE or not same:
            raise InvalidValueError(
                f"The checkpoints in {directory} do not fit this {type(callback).__name__}: its "
                f"'{name}' is {now!r}, and there {value!r}. Give another directory."
            )
        vars(callback)[name] = value


def _with_arrays(value, arrays):
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array"} and value["array"] in range(len(arrays)):
        return arrays[value["array"]][()]  # a number again, where it was one
    return {name: _with_arrays(item, arrays) for name, item in value.items()}


def _kind(value):
    """What stands for what: numbers and truth values for each other, lists and tuples too."""
    if isinstance(value, (numbers.Number, np.generic)):
        return float
    return None if value is None else list if isinstance(value, tuple) else type(value)
