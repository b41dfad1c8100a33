"""Binary images to a file and back, bit for bit, at about the rate of the model's ELBO."""

import dataclasses
import hashlib
import importlib.metadata
import math
import pathlib
import zlib

import numpy as np
import tensorflow as tf
from keras import ops

from vae_tf import files, memory
from vae_tf.applications import bits_back
from vae_tf.applications.compressed_file import (
    DTYPES,
    CompressedFile,
    from_bytes,
    header_bytes,
    num_pixels,
    pixels_crc,
)
from vae_tf.applications.sources import source_of
from vae_tf.errors import InvalidTypeError, check_new_path, invalid
from vae_tf.evaluation.estimates import Estimate
from vae_tf.evaluation.latent import why_not_latent

EVERY = 20  # images between two words of progress


@dataclasses.dataclass(frozen=True)
class Compression:
    """What `compress` has written.

    Attributes:
        path: the file.
        bits: how much longer each image made the stack, `(N,)`: on average −ELBO in bits.
        initial_bits: what the first images took from the bottom of the stack, and the file has to hold.
        header_bytes, file_bytes: sizes.
        pixels: of an image.
    """

    path: pathlib.Path
    bits: np.ndarray
    initial_bits: int
    header_bytes: int
    file_bytes: int
    pixels: int

    @property
    def net_rate(self):
        """Bits a pixel without the initial bits and the header: an `Estimate` over the images."""
        return Estimate.over(self.bits).scaled(1 / self.pixels)

    @property
    def rate(self):
        """Bits a pixel of the whole file."""
        return 8 * self.file_bytes / (self.pixels * len(self.bits))


def compress(source, images, path, progress=None):
    """Write binary images to a file from which `decompress` has them back, bit for bit.

    Bits-back coding: an image takes −log p(x|z) − log p(z) + log q(z|x) bits, on average −ELBO. All
    images are one chain, and the file is decoded once before it is written.

    Args:
        source: a run directory or a `vae_tf.Model`, with q(z|x) normal, p(z) = N(0, I), and binary pixels
            that are independent given z.
        images: `(N, *image_shape)`: booleans, bytes 0 and 255, or floats 0 and 1.
        path: the file; one that is there is replaced.
        progress: `progress(done, total)`, where each image counts twice: coded, and decoded.

    Returns:
        A `Compression`: the rates and sizes.

    Raises:
        ValueError, TypeError: the model or the images are of another kind.

    Example:
        >>> compress("runs/mnist_default_z10", images, "images.bits").rate  # doctest: +SKIP
        0.18

    Source: Townsend, Bird & Barber (2019), "Practical lossless compression with latent variables using
    bits back coding".
    """
    source, path = source_of(source), check_new_path("path", path)
    source.needs("model", "compress")
    x = source.checked(images, "images")
    if why := why_not_lossless(source, x):
        raise invalid("source", "a model and images that bits-back coding is for", why, HINT)
    if path.is_dir():
        raise invalid("path", "a file", f"{str(path)!r}, which is a directory")
    codec, count = Codec(source.model), len(x)
    coder, bits = codec.coder(), []
    for number, image in enumerate(x):
        before = coder.num_bits
        coder.push(image != 0)
        bits.append(coder.num_bits - before)
        _tell(progress, number + 1, count, 2 * count)
    file, initial_bits = codec.file(coder, x)
    content = file.to_bytes()
    shown = progress and (lambda done, total: progress(count + done, 2 * count))
    _check_comes_back(codec, from_bytes(content, path), x, shown)
    files.write_atomically(path, content)
    sizes = initial_bits, header_bytes(file), len(content)
    return Compression(path, np.array(bits), *sizes, num_pixels(x.shape[1:]))


def decompress(source, path, progress=None):
    """The images of a file that `compress` has written, as they were given to it.

    Args:
        source: the model that the file was written with, as for `compress`.
        path: the file.
        progress: `progress(done, total)`, in images.

    Raises:
        ValueError: the file is damaged, or of another model, or this machine computes other bits.
        OSError: it cannot be read.
    """
    source, path = source_of(source), pathlib.Path(path)
    file = from_bytes(path.read_bytes(), path)
    source.needs("model", "decompress")
    if file.shape[1:] != source.image_shape:
        received = f"one of images of shape {file.shape[1:]}: {str(path)!r}"
        raise invalid("path", f"a file of images of shape {source.image_shape}", received)
    if why := why_not_lossless(source):
        raise invalid("source", "the model that the file was written with", why)
    size = np.dtype(file.dtype).itemsize * math.prod(file.shape)
    memory.check_fits("path", size, f"{str(path)!r} of {file.shape[0]} images")
    codec = Codec(source.model)
    if file.weights != codec.weights():
        received = f"{str(path)!r}, which was written with a model of other weights"
        raise invalid("path", "a file of this model", received)
    try:
        if file.computed != codec.computed():
            raise bits_back.OtherBitsError
        return codec.images(file, progress)
    except bits_back.OtherBitsError as error:
        expected = "a file of a model that computes here the very bits that it computed there"
        received = f"{str(path)!r}, made with {file.versions}: here the last bits are others"
        hint = f"Read it on such a machine, with its versions and settings. Here are {_versions()}."
        raise invalid("path", expected, received, hint) from error


def _check_comes_back(codec, file, x, progress):
    """Decode what is to be written, since a model could compute other bits when it is asked again."""
    try:
        found = codec.images(file, progress)
    except bits_back.OtherBitsError:
        found = None
    if found is None or not np.array_equal(found, x):
        hint = "On a CPU it should: CUDA_VISIBLE_DEVICES='' hides a GPU. Nothing was written."
        raise invalid(
            "source", "a model that computes the same bits each time", "one that does not", hint
        )


HINT = (
    "It works with the run, or the vae_tf.Model, of a VAE that was trained on binary images "
    "(--binarize dynamic), and with binary images."
)


def why_not_lossless(source, x=None):
    """Why a model cannot code images, in words; None where it can.

    Args:
        x: the images, checked; None leaves them out.
    """
    model = source.model
    if model is None:
        return "an exported or served model, which does not say its likelihood and its prior"
    if model.condition is not None:
        return f"a model with a condition, '{model.condition.name}', which a file does not hold"
    if model.likelihood.support.kind != "binary":
        return f"a likelihood of pixels that are not binary: {type(model.likelihood).__name__}"
    if why := why_not_latent(model, np.zeros((1, *model.image_shape), np.float32)):
        return f"a model without q(z|x) and p(z) = N(0, I), both normal: {why}"
    if x is not None and not model.likelihood.support.contains(x):
        return "images with grey values"
    return None


class Codec:
    """A model as bits-back coding asks it: one image or one z at a time, always in the same way.

    A network may compute other last bits for a row in another batch. One image a batch is the same
    for the encoder and for the decoder, which has no more than the image that it has just decoded.
    """

    def __init__(self, model):
        self.model, self.shape = model, tuple(model.image_shape)
        (self.latent_dim,) = model.latent_shape

        def posterior(x):
            q = model.posterior(x)
            return ops.cast(q.mean(), "float32"), ops.cast(q.log_var, "float32")

        def probabilities(z):
            return ops.cast(model.likelihood.mean(model.decode(z)), "float32")

        self._posterior = _traced(posterior, self.shape)
        self._probabilities = _traced(probabilities, (self.latent_dim,))

    def coder(self, stack=None, count=0):
        """A `BitsBack` of the model."""
        functions = self.posterior, self.probabilities
        return bits_back.BitsBack(*functions, self.shape, self.latent_dim, stack, count)

    def posterior(self, image):
        mean, log_var = (t.numpy()[0] for t in self._posterior(tf.constant(image[None])))
        with np.errstate(over="ignore"):  # what is not finite is refused
            return mean.astype(np.float64), np.exp(0.5 * log_var.astype(np.float64))

    def probabilities(self, z):
        return self._probabilities(tf.constant(z[None])).numpy()[0]

    def weights(self):
        """What tells the model from others: the beginning of its weights' SHA-256."""
        digest = hashlib.sha256()
        for weight in self.model.trainable_variables:
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(weight)))
        return digest.digest()[:8]

    def computed(self):
        """The CRC-32 of what the model computes of fixed inputs: other bits mean that no file can be read."""
        random, crc = np.random.RandomState(0), 0
        for _ in range(8):
            image = (random.random_sample(self.shape) < 0.5).astype(np.float32)
            z = random.standard_normal(self.latent_dim).astype(np.float32)
            for array in (*self.posterior(image), self.probabilities(z)):
                crc = zlib.crc32(np.ascontiguousarray(array), crc)
        return crc

    def file(self, coder, x):
        """The `CompressedFile` of a stack with the images x, and its initial bits."""
        words, first = coder.words(), self.first_bits()
        shorter = min(len(words), len(first))
        touched = np.flatnonzero(words[:shorter] != first[:shorter])
        bottom = int(touched[0]) if len(touched) else shorter
        checks = self.weights(), self.computed(), pixels_crc(x)
        dtype = x.dtype.newbyteorder("<").str
        if dtype not in DTYPES:
            raise invalid("images", f"one of {', '.join(DTYPES)}", dtype, kind=InvalidTypeError)
        file = CompressedFile(dtype, x.shape, bottom, *checks, _versions(), words[bottom:])
        return file, 32 * (len(first) - bottom)

    def images(self, file, progress=None):
        """The images of a `CompressedFile`.

        Raises:
            OtherBitsError: the model computes other bits here.
        """
        dtype, count, first = np.dtype(file.dtype), file.shape[0], self.first_bits()[: file.bottom]
        images = np.empty(file.shape, dtype)
        coder = self.coder(np.concatenate([first, file.words]), count)
        for number in reversed(range(count)):
            images[number] = coder.pop() * (255 if dtype.kind == "u" else 1)
            _tell(progress, count - number, count, count)
        if not coder.is_at_its_beginning() or pixels_crc(images) != file.pixels:
            raise bits_back.OtherBitsError
        return images

    def first_bits(self):
        return bits_back.first_bits(self.latent_dim)


def _traced(function, shape):
    """A concrete function of one row."""
    spec = tf.TensorSpec((1, *shape), "float32")
    return tf.function(function, autograph=False).get_concrete_function(spec)


def _versions():
    return f"tensorflow {tf.__version__}, constriction {importlib.metadata.version('constriction')}"


def _tell(progress, done, count, total):
    if progress is not None and (done % EVERY == 0 or done == count):
        progress(done, total)
