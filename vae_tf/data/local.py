"""A user's own images: an array in a .npz or .npy file, or a folder of image files."""

import functools
import math
import zipfile

import numpy as np

from vae_tf.data.checks import check_images, check_labels
from vae_tf.data.folders import read_folder
from vae_tf.data.image_files import SUFFIXES
from vae_tf.data.images import Images, as_bytes, split
from vae_tf.data.sizes import check_room, resized_all
from vae_tf.errors import as_typed, invalid, printable

EXPECTED = "a .npz or .npy file, or a folder of images"


def load_path(path, size=None, background=None, value_range=(0.0, 1.0)):
    """`Images` from a `.npz` or `.npy` file or a folder.

    Args:
        path: a `pathlib.Path`.
        size, background: of `read_folder`.
        value_range: the least and the largest float.

    Raises:
        ValueError: what is there cannot be used.
    """
    if path.is_dir():
        return read_folder(path, size, background)
    if not path.exists():
        raise invalid("data", EXPECTED, f"{str(path)!r}, which does not exist")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise invalid("data", EXPECTED, f"{str(path)!r}", _conversion(path))
    images = _images_of(read_arrays(path), path, value_range)
    return images.mapped(functools.partial(resized_all, size=size))


def _conversion(path):
    """What makes something usable of a file of another kind."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return f"For one image give the folder that it is in: {as_typed('data', str(path.parent))}."
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return "Unpack it, and give the folder."
    return (
        "Write the images as an array (N, H, W) or (N, H, W, C): np.savez('images.npz', x=images)."
    )


# Arrays in files.


def read_arrays(path):
    """By name functions that read the file's arrays, which are read when they are needed."""
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {"x": _reader(path, None, *_header(file))}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as file:
                        found[name.removesuffix(".npy")] = _reader(path, name, *_header(file))
            return found
    except PermissionError:
        raise
    except Exception as error:  # zipfile.BadZipFile, zlib.error, ...: a file that is no archive
        received = f"{str(path)!r}, which is damaged ({error})"
        raise invalid("data", "a .npz or .npy file", received) from error


def _header(file):
    """`(shape, dtype)` of an array, by the first bytes of its file."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file)
    return shape, dtype


def _reader(path, name, shape, dtype):
    """A function that reads an array, if there is memory for it."""

    def read():
        if dtype.hasobject:
            hint = "Write the images as one array: np.savez(path, x=np.stack(images))."
            received = f"{str(path)!r}, whose array {name or ''} holds Python objects"
            raise invalid("data", "a file of numeric arrays", received, hint)
        check_room(max(1, math.prod(shape[:1])), shape[1:], dtype.itemsize)
        try:
            if name is None:
                return np.load(path, allow_pickle=False)
            with zipfile.ZipFile(path) as archive, archive.open(name) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            received = f"{str(path)!r}, which is damaged ({error})"
            raise invalid("data", "a .npz or .npy file", received) from error

    return read


# Images and labels.


def _images_of(arrays, path, value_range):
    """`Images` of the arrays of a file, by their names."""
    name, pair = (
        printable(path.stem),
        functools.partial(images_and_labels, arrays, path, value_range),
    )
    if "x_train" in arrays:
        parts = {
            p: pair(f"x_{p}", f"y_{p}") for p in ("train", "test", "val") if f"x_{p}" in arrays
        }
        if len(parts) == 1:
            return split(name, *parts["train"])
        if len(shapes := {x.shape[1:] for x, _ in parts.values()}) > 1:
            received = " and ".join(map(str, sorted(shapes)))
            raise invalid("data", "train and test images of one shape", received)
        parts.setdefault("test", parts.get("val"))
        found = {
            f"{key}_{p}": value
            for p, both in parts.items()
            for key, value in zip("xy", both, strict=True)
        }
        return Images(name, **found)
    for key in ("x", "images", "arr_0"):
        if key in arrays:
            return split(name, *pair(key, "y" if "y" in arrays else "labels"))
    raise invalid(
        "data",
        "an array named x_train (with x_test), x, images or arr_0",
        f"{str(path)!r} with {sorted(arrays) or 'no arrays'}",
        "Write it with np.savez(path, x=images).",
    )


def images_and_labels(arrays, path, value_range, x_key, y_key):
    """Images as `(N, H, W, C)`, in bytes where nothing is lost by it, and their labels or None."""
    file = printable(path.name)
    x = check_images(arrays[x_key](), f"data ({file}: {x_key})", value_range)
    y = (
        check_labels(arrays[y_key](), len(x), f"data ({file}: {y_key})")
        if y_key in arrays
        else None
    )
    if x.ndim == 2:
        x = x[:, None, :]
    return as_bytes(x if x.ndim == 4 else x[..., None]), y
