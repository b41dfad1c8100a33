"""Every image at a path in the order it has there, with its name: for what tells of each image."""

import pathlib

import numpy as np

from vae_tf.data import folders, local
from vae_tf.data.images import as_bytes
from vae_tf.data.sizes import resized_all
from vae_tf.errors import invalid, printable


def load_every(path, size=None, background=None, value_range=(0.0, 1.0)):
    """All images of a folder or a file, which is not split.

    Args:
        path: a folder of images, or a .npz or .npy file.
        size: `(height, width)` to bring them to, or None.
        background, value_range: of `data.load`.

    Returns:
        `(x, y, names)`: images `(N, H, W, C)`, their labels or None, and what each is called: its file
        below the folder, or its place in the array, such as `x[17]`.

    Raises:
        ValueError: what is there cannot be used.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _of_folder(path, size, background)
    if not path.exists() or path.suffix.lower() not in (".npz", ".npy"):
        local.load_path(path, size, background, value_range)  # which says what is wrong
    arrays = local.read_arrays(path)
    key = next((key for key in ("x", "images", "arr_0", "x_train") if key in arrays), None)
    if key is None:
        expected = "an array named x, images or arr_0"
        raise invalid("data", expected, f"{str(path)!r} with {sorted(arrays) or 'no arrays'}")
    own = "y_train" if key == "x_train" else "y" if "y" in arrays else "labels"
    x, y = local.images_and_labels(arrays, path, value_range, key, own)
    return resized_all(x, size), y, [f"{key}[{number}]" for number in range(len(x))]


def comes_split(path):
    """Whether a folder or a file has training images and others, each by themselves."""
    path = pathlib.Path(path)
    if path.is_dir():
        return folders.comes_split(path)
    if not path.is_file() or path.suffix.lower() != ".npz":
        return False
    arrays = local.read_arrays(path)
    return "x_train" in arrays and ("x_test" in arrays or "x_val" in arrays)


def _of_folder(folder, size, background):
    headers, x = folders.read_all(folder, size, background)
    paths = [header.path.relative_to(folder) for header in headers]
    labels = folders.labels_of([path.parent.parts for path in paths])
    labels = np.array(labels) if len(set(labels)) > 1 else None
    return as_bytes(x), labels, [printable(path.as_posix()) for path in paths]
