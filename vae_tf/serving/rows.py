"""What the client is given, as rows of a signature's inputs."""

import functools
import sys

import numpy as np

from vae_tf.errors import InvalidTypeError, check_positive_int, invalid
from vae_tf.random import row_seeds


def served_dtype(array):
    """Numbers in the types that every signature takes: float32 and int64."""
    return array.astype({"f": "float32", "i": "int64"}.get(array.dtype.kind, array.dtype))


class Floats:
    """Checked images, of which a slice is as the signatures take it: bytes as in `Model.to_floats`."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        part = self.images[rows]
        floats = part.astype("float32")
        return floats * np.float32(1 / 255) if part.dtype == np.uint8 else floats


class RowSeeds:
    """The seeds of `num` rows that stand for one seed: made when more than the first are asked for."""

    def __init__(self, seed, num):
        self.seed = row_seeds(seed, 1)[0] if seed is None else seed
        self.num = num
        self._all = functools.cache(row_seeds)

    def __len__(self):
        return self.num

    def __getitem__(self, rows):
        if rows.start == 0:
            return row_seeds(self.seed, rows.stop)
        return self._all(self.seed, self.num)[rows]


def seed_column(num, seed, seeds):
    """A seed a row: those given, or those that stand for `seed`."""
    if seeds is None:
        num = check_positive_int("num", 1 if num is None else num)
        if num > sys.maxsize:
            raise invalid("num", f"no more than {sys.maxsize}", f"num={num}")
        return RowSeeds(seed, num)
    if num is not None or seed is not None:
        raise invalid("seeds", "None where there are num or seed", "both")
    seeds = np.atleast_1d(_int64("seeds", seeds))
    if seeds.ndim > 1 or not len(seeds):
        raise invalid("seeds", "integers of shape (num,)", f"shape {seeds.shape}")
    return seeds


def condition_columns(condition, num):
    """A value for each of `num` rows, where a number stands for all of them.

    By convention a condition that is called `label` is a class, an integer; another may be any number.
    """
    rows = {}
    for name, value in condition.items():
        value = _int64(name, value) if name == "label" else np.asarray(value)
        if value.dtype.kind not in "iufb":
            raise invalid(name, "numbers", f"{value.dtype}", kind=InvalidTypeError)
        value = value.astype("float32" if value.dtype.kind == "f" else "int64")
        if value.ndim and len(value) != num:
            raise invalid(name, f"one for all, or one for each of {num} rows", f"{len(value)}")
        rows[name] = value if value.ndim else np.broadcast_to(value, num)
    return rows


def _int64(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise invalid(name, "integers", f"{values.dtype}", kind=InvalidTypeError)
    if values.max(initial=0) > np.iinfo("int64").max:
        raise invalid(name, "integers below 2**63", f"{values.max()}")
    return values.astype("int64")
