"""Arrays that two runs of a model gave, compared: what differs by too much, and by how much at most."""

import collections
import io

import numpy as np
import PIL.Image

_UNBOUNDED = ("z", "z_mean", "z_log_var", "elbo")  # differences relative to the value count, too
_HALF_TOLERANCE = 0.05  # bfloat16 keeps 8 bits of each hidden layer's values


class Comparison:
    """Arrays compared by name: levels of a PNG's pixels to within 1, others to `tolerance`.

    Args:
        tolerance: the largest difference allowed, in the array's own unit.
        half: whether the model computes in half precision, where larger differences are allowed.

    Attributes:
        problems: a sentence for each pair of arrays that differ by too much.
    """

    def __init__(self, tolerance=1e-6, half=False):
        self.problems, self._largest = [], {}
        self._relative = _HALF_TOLERANCE if half else 1e-5
        self._tolerances = collections.defaultdict(lambda: _HALF_TOLERANCE if half else tolerance)
        self._tolerances["png_bytes"] = 255 * _HALF_TOLERANCE if half else 1

    def add(self, place, got, expected, exact=()):
        """Compare the arrays that both runs have given.

        Args:
            place: what is compared, for the message.
            got, expected: arrays by name.
            exact: the names of those that must be equal bit for bit.
        """
        for name in sorted(got.keys() & expected.keys()):
            if object in (got[name].dtype, expected[name].dtype):
                continue  # not a picture: the check of the signatures' agreement reports it
            if got[name].shape == expected[name].shape:
                tolerances = (0, 0) if name in exact else self._allowed(name)
                self._add(place, name, got[name].astype("float64"), expected[name], *tolerances)
            else:
                shapes = f"{got[name].shape}, not {expected[name].shape}"
                self.problems.append(f"{place}: {name} has the shape {shapes}")

    def _allowed(self, name):
        return self._tolerances[name], self._relative if name in _UNBOUNDED else 0

    def _add(self, place, name, got, expected, absolute, relative):
        with np.errstate(invalid="ignore"):  # values that are not finite in both are no difference
            same = (got == expected) | (np.isnan(got) & np.isnan(expected))
            difference = np.where(same, 0.0, np.abs(got - expected))
            allowed = absolute + relative * np.abs(expected)
        if not (same | (difference <= allowed)).all():
            self.problems.append(f"{place}: {name} differs by {difference.max():.1e}")
        largest, changed, num = self._largest.get(name, (0.0, 0, 0))
        changed += np.count_nonzero(difference)
        self._largest[name] = max(largest, difference.max()), changed, num + difference.size

    @property
    def facts(self):
        """The largest differences; nothing if nothing was compared."""
        parts = [
            f"{name} {largest:.1e}"
            if name != "png_bytes"
            else f"PNG {largest:.0f} in {changed} of {num:,} levels"
            for name, (largest, changed, num) in sorted(self._largest.items())
        ]
        return f"largest difference: {', '.join(parts)}" if parts else ""


def pixels_of(array):
    """The pixels of PNG pictures of one size; other arrays, and strings that are no PNG, as they are."""
    if array.dtype != object:
        return array
    try:
        images = [PIL.Image.open(io.BytesIO(png), formats=("PNG",)) for png in array]
        pixels = np.stack([np.asarray(image) for image in images])
    except (OSError, ValueError, SyntaxError):
        return array
    return pixels if pixels.ndim == 4 else pixels[..., None]


def png_levels(images):
    """The levels that a PNG of images (batch, H, W) or (batch, H, W, C) in [0, 1] has."""
    images = images[..., None] if images.ndim == 3 else images
    return {"png_bytes": np.rint(255 * np.clip(images, 0, 1))}
