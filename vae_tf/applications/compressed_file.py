"""The file of compressed images: a header that says what can read it, and the stack of bits.

    magic, format, kind of values, axes    4 + 3 bytes
    images, words of the bottom, words     3 × 4 bytes
    SHA-256 of the weights (its beginning) 8 bytes
    CRC-32 of what the model computes here 4 bytes
    CRC-32 of the images                   4 bytes
    the shape of an image                  4 bytes an axis
    versions                               1 byte, and so many
    the stack's words                      4 bytes each
    CRC-32 of all before                   4 bytes

All little-endian.
"""

import dataclasses
import math
import struct
import zlib

import numpy as np

from vae_tf.errors import invalid

MAGIC, FORMAT = b"vtbb", 1
DTYPES = ("|b1", "|u1", "<f4", "<f8", "<f2")  # what the images were given as
_FIXED = struct.Struct("<4sBBBIII8sII")
_CRC = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class CompressedFile:
    """What a file holds.

    Attributes:
        dtype: of the images as they were given, such as "|u1".
        shape: `(N, *image_shape)`.
        bottom: how many words at the bottom of the stack are as they always begin, and left out.
        weights: what tells the model from others.
        computed: the CRC-32 of what the model computes of fixed inputs.
        pixels: the CRC-32 of the images, a bit a pixel.
        versions: of the libraries that it was made with, in words.
        words: the stack, from `bottom` on, `uint32`.
    """

    dtype: str
    shape: tuple
    bottom: int
    weights: bytes
    computed: int
    pixels: int
    versions: str
    words: np.ndarray

    def to_bytes(self):
        count, *axes = self.shape
        kind, words = DTYPES.index(self.dtype), np.asarray(self.words, "<u4")
        fixed = (MAGIC, FORMAT, kind, len(axes), count, self.bottom, len(words))
        fixed = _FIXED.pack(*fixed, self.weights, self.computed, self.pixels)
        versions = self.versions.encode()
        rest = struct.pack(f"<{len(axes)}IB", *axes, len(versions)) + versions
        content = fixed + rest + words.tobytes()
        return content + _CRC.pack(zlib.crc32(content))


def from_bytes(content, path):
    """What the bytes of a file say.

    Raises:
        ValueError: they are of no such file, of a newer one, or damaged; `path` is for the message.
    """
    if content[:4] != MAGIC:
        hint = "vae-tf compress writes it, and vae_tf.applications.compress."
        raise _wrong("a file of compressed images", path, "which is none", hint)
    if len(content) > 4 and content[4] != FORMAT:
        hint = "A newer vae_tf reads it."
        raise _wrong(f"a file of format {FORMAT}", path, f"of format {content[4]}", hint)
    if len(content) < _FIXED.size + _CRC.size:
        raise _damaged(path, f"{len(content)} bytes are left of it")
    body, (crc,) = content[: -_CRC.size], _CRC.unpack(content[-_CRC.size :])
    if zlib.crc32(body) != crc:
        raise _damaged(path, f"its checksum is not that of its {len(content)} bytes")
    try:
        return _parsed(body)
    except (struct.error, ValueError, IndexError) as error:
        raise _damaged(path, f"its parts do not fit together: {error}") from error


def _parsed(body):
    _, _, kind, num_axes, count, bottom, num_words, *checks = _FIXED.unpack_from(body)
    lengths = struct.Struct(f"<{num_axes}IB")
    *axes, size = lengths.unpack_from(body, _FIXED.size)
    start = _FIXED.size + lengths.size + size
    if len(body) != start + 4 * num_words or not count or not all(axes):
        raise ValueError(f"{len(body)} bytes for {count} images of {axes}, {num_words} words")
    versions = body[start - size : start].decode()
    words = np.frombuffer(body, "<u4", offset=start).astype(np.uint32)
    if not num_words or not words[-1]:
        raise ValueError("its stack has no top")
    return CompressedFile(DTYPES[kind], (count, *axes), bottom, *checks, versions, words)


def pixels_crc(images):
    """The CRC-32 of binary images `(N, ...)`, a bit a pixel."""
    return zlib.crc32(np.packbits(np.asarray(images, bool)).tobytes())


def header_bytes(file):
    """How many of a file's bytes are no part of the stack."""
    return _FIXED.size + _CRC.size + 4 * (len(file.shape) - 1) + 1 + len(file.versions.encode())


def num_pixels(image_shape):
    """Places of an image: its colours count as one, and a vector's numbers each."""
    return math.prod(image_shape[:2] if len(image_shape) == 3 else image_shape)


def _wrong(expected, path, received, hint=""):
    return invalid("path", expected, f"{str(path)!r}, {received}", hint)


def _damaged(path, why):
    hint = "Bring the file back from where it came. No image was written."
    return _wrong("a file that is whole", path, f"which is damaged ({why})", hint)
