"""How many bits a pixel images need, and what is lost: by a model's code, beside PNG and WebP."""

import dataclasses
import functools
import math

import numpy as np

from vae_tf import evaluation
from vae_tf.applications.compressed_file import num_pixels
from vae_tf.applications.image_formats import is_picture, stored
from vae_tf.applications.sources import source_of
from vae_tf.errors import check_positive_int, invalid
from vae_tf.evaluation.estimates import ROWS

BITS = (1, 2, 3, 4, 6, 8)  # of each dimension of a code
QUALITIES = (0, 25, 50, 80)  # of lossy WebP
SHOWN = 10  # images of each point that pictures show

KINDS = {
    "code": "The code without noise, each dimension in 2^b equal steps over the range that the training "
    "codes have. The rate is −log₂ of the steps' frequency among the training codes.",
    "KL": "KL(q(z|x) ‖ p(z)), the bits in which a draw of z can be sent where sender and receiver share "
    "random numbers. The distortion is of the image that this draw gives.",
    "−ELBO": "The bits of lossless coding with the model, such as bits-back coding has, beside its "
    "initial bits and a header.",
    "codes": "The map of discrete codes: −log₂ of its probability under the model's prior, or log₂ K a code "
    "where it has none.",
    "PNG": "Lossless; each image a file, or all tiled in one.",
    "WebP": "Lossless, or lossy at a quality; each image a file, or all tiled in one.",
}  # what is shown of each kind


@dataclasses.dataclass(frozen=True)
class Point:
    """A rate and a distortion.

    Attributes:
        kind: a key of `KINDS`.
        setting: which of its kind, such as "4 bits".
        rate: bits a pixel; colours count as one pixel, each number of a vector as one.
        mse: mean square error of a value, white being 1; 0 where nothing is lost.
        images: the first images as they come back, or None where they are the images themselves.
    """

    kind: str
    setting: str
    rate: float
    mse: float
    images: np.ndarray | None = None

    @property
    def name(self):
        return f"{self.kind}, {self.setting}" if self.setting else self.kind

    @property
    def psnr(self):
        """10 log₁₀(1 / mse) in dB: of the mean square error over all images."""
        return math.inf if self.mse == 0 else -10 * math.log10(self.mse)


def rate_distortion(source, images, training, bits=BITS, seed=0, progress=None):
    """Rates and distortions of images: of what the model allows, and of PNG and WebP.

    Args:
        source: whatever `source_of` takes, without a condition. The KL, the ELBO and discrete codes are
            known of a run or a `vae_tf.Model` alone.
        images: `(N, *image_shape)`.
        training: images of the training set, whose codes say what steps and frequencies a code has.
        bits: in how many bits a dimension of the code is kept, one or more numbers from 1 to 16.
        seed: of the draws.
        progress: `progress(done, total)`, in points.

    Returns:
        A list of `Point`s.

    Raises:
        ValueError, TypeError: the source has no encoder, or the images do not fit.
    """
    source = source_of(source)
    check_source(source)
    x, training = source.checked(images, "images"), source.checked(training, "training")
    bits = [_check_bits(b) for b in np.atleast_1d(bits).tolist()]
    tasks = [*_of_model(source, x, training, bits, seed), *_of_files(x)]
    points = []
    for number, task in enumerate(tasks, 1):
        points.append(task())
        if progress is not None:
            progress(number, len(tasks))
    return points


def check_source(source):
    """Raise unless a source can say rates and distortions."""
    if source.condition is not None:
        received = f"one with the condition '{source.condition.name}'"
        raise invalid("source", "a model without a condition, for 'compress'", received)
    for call in ("encode", "decode"):
        source.needs(call, "compress")


def _check_bits(bits):
    if check_positive_int("bits", bits) > 16:
        raise invalid("bits", "integers from 1 to 16", f"bits={bits}")
    return bits


def _of_model(source, x, training, bits, seed):
    """Functions that give the points of what a model has."""
    model = source.model
    if model is not None and model.codes is not None:
        return [functools.partial(_code_map, source, x)]
    codes = functools.cache(lambda: (source.encode(x), source.encode(training)))
    tasks = [lambda b=b: _quantised(source, x, *codes(), b) for b in bits]
    if model is None or model.log_weights is None:
        return tasks
    terms = functools.cache(lambda: evaluation.elbo(model, x, seed=seed))
    support = model.likelihood.support
    if source.has("posterior"):
        tasks.append(lambda: _kl(source, x, terms(), seed))
    if support.kind in ("binary", "bytes") and support.contains(x):
        tasks.append(lambda: Point("−ELBO", "lossless", _rate(-terms()["elbo"].mean, x), 0.0))
    return tasks


def _rate(nats, x):
    """Nats an image as bits a pixel."""
    return nats / (math.log(2) * num_pixels(x.shape[1:]))


def _quantised(source, x, codes, training, bits):
    """The code in 2^bits steps a dimension."""
    flat, known = codes.reshape(len(codes), -1), training.reshape(len(training), -1)
    low, high, num = known.min(axis=0), known.max(axis=0), 2**bits
    step = np.where(high > low, (high - low) / num, 1)  # one that never moves has one step

    def steps(z):
        return np.clip(np.floor((z - low) / step), 0, num - 1).astype(np.int64)

    columns = np.arange(flat.shape[1])
    counts = np.ones((flat.shape[1], num))  # none is impossible
    np.add.at(counts, (columns, steps(known)), 1)
    found = steps(flat)
    nats = -np.log(counts[columns, found] / (len(known) + num)).sum(axis=1).mean()
    values = np.where(high > low, low + (found + 0.5) * step, low)
    restored = source.decode(values.reshape(codes.shape).astype(np.float32))
    return _point("code", f"{bits} bit{'s' * (bits > 1)}", _rate(nats, x), x, restored)


def _kl(source, x, terms, seed):
    z = evaluation.draw_codes(*source.posterior(x), seed)
    restored = source.decode(z.astype(np.float32))
    return _point("KL", "", _rate(terms["kl_loss"].mean, x), x, restored)


def _code_map(source, x):
    model, restored = source.model, source.reconstruct(x)
    codes = model.codes(x)
    places, setting = codes[0].size, f"log₂ {model.num_codes}"
    nats = places * math.log(model.num_codes)
    if model.sample_prior is not None:
        starts, setting = range(0, len(codes), ROWS), "its prior"
        nats = -np.mean(
            np.concatenate([np.asarray(model.log_prior(codes[i : i + ROWS])) for i in starts])
        )
    return _point("codes", setting, _rate(nats, x), x, restored)


def _point(kind, setting, rate, x, restored):
    """A point of images and what comes back, from which the distortion is taken."""
    squares = [  # a part at a time: floats of all are several times their bytes
        np.square(_floats(x[i : i + ROWS]) - _floats(restored[i : i + ROWS])).sum()
        for i in range(0, len(x), ROWS)
    ]
    return Point(kind, setting, float(rate), float(sum(squares) / x.size), restored[:SHOWN])


def _floats(x):
    return x / 255 if x.dtype == np.uint8 else np.asarray(x, np.float64)


def _of_files(x):
    """Functions that give the points of PNG and WebP; none of what is no picture."""
    if not is_picture(x):
        return []
    ways = [("PNG", "lossless", {"optimize": True}), ("WebP", "lossless", {"lossless": True})]
    ways += [("WebP", f"quality {quality}", {"quality": quality}) for quality in QUALITIES]
    return [
        functools.partial(_stored, x, kind, f"{setting}, {how}", options, per_file)
        for kind, setting, options in ways
        for how, per_file in (("each", 1), ("one sheet", None))
    ]


def _stored(x, kind, setting, options, per_file):
    size, restored = stored(x, kind, options, per_file)
    return _point(kind, setting, 8 * size / (len(x) * num_pixels(x.shape[1:])), x, restored)
