"""The values that a distribution is about, and whether given images are among them."""

import dataclasses
import math

import numpy as np

BIN = 1 / 255  # the distance between two grey values of a byte, where white is 1


@dataclasses.dataclass(frozen=True)
class Support:
    """The values that a distribution is about.

    Args:
        low, high: the least and the greatest value of a pixel.
        kind: "binary" (0 and 1), "bytes" (k/255), "interval" (all from low to high) or "real".

    Bytes of an array of integers stand for k/255, and booleans for 0 and 1.
    """

    low: float
    high: float
    kind: str

    def accepts(self, x):
        """Whether one can train on the array: all of it is finite and in the range."""
        x = np.asarray(x)
        white = _white(x)
        low, high = self.low * white, self.high * white
        return bool(np.isfinite(x).all() and low <= x.min() and x.max() <= high)

    def contains(self, x):
        """Whether the array's values are points of the support: `log_prob` is a log-likelihood.

        >>> BINARY.accepts([[0.5]]), BINARY.contains([[0.5]])
        (True, False)
        """
        x = np.asarray(x)
        if not self.accepts(x):
            return False
        if self.kind == "binary":
            return bool(np.isin(x, (0, _white(x))).all())
        if self.kind == "bytes" and x.dtype.kind == "f":
            tolerance = max(1e-3, 255 * np.finfo(x.dtype).eps)  # half floats round k/255 coarsely
            return bool((np.abs(x / BIN - np.round(x / BIN)) <= tolerance).all())
        return True


BINARY = Support(0.0, 1.0, "binary")
BYTES = Support(0.0, 1.0, "bytes")
INTERVAL = Support(0.0, 1.0, "interval")
REAL = Support(-math.inf, math.inf, "real")


def _white(x):
    """What white is in an array: 255 in one of integers, otherwise 1."""
    return 255 if x.dtype.kind in "ui" else 1
