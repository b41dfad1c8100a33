"""A user's own images: a .npz file, or a folder of image files."""

import collections

import numpy as np

from vae_tf.data.checks import check_images
from vae_tf.data.images import Images, split
from vae_tf.errors import invalid


def load_path(path):
    """`Images` from a `.npz` file or a folder.

    Args:
        path: a `pathlib.Path`.

    Raises:
        ValueError: what is there cannot be used.
    """
    expected = "a .npz file or a folder of images"
    if path.is_dir():
        return split(path.resolve().name, *_read_folder(path))
    if not path.exists():
        raise invalid("data", expected, f"{str(path)!r}, which does not exist")
    if path.suffix != ".npz":
        raise invalid("data", expected, f"{str(path)!r}")
    return _images_of(_read_arrays(path), path)


# Archives.


def _read_arrays(path):
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError) as error:
        received = f"{str(path)!r} ({error})"
        raise invalid("data", "a .npz file of numeric arrays", received) from error
    except Exception as error:  # zipfile.BadZipFile, zlib.error: a file that is no archive
        received = f"{str(path)!r}, which is damaged ({error})"
        raise invalid("data", "a .npz file", received) from error


def _images_of(arrays, path):
    """`Images` of the arrays of an archive, by their names."""
    if "x_train" in arrays:
        x_train, y_train = _pair(arrays, "x_train", "y_train", path)
        if "x_test" not in arrays:
            return split(path.stem, x_train, y_train)
        x_test, y_test = _pair(arrays, "x_test", "y_test", path)
        if x_test.shape[1:] != x_train.shape[1:]:
            received = f"{x_train.shape[1:]} and {x_test.shape[1:]}"
            raise invalid("data", "train and test images of one shape", received)
        return Images(path.stem, x_train, x_test, y_train, y_test)
    for key in ("x", "images", "arr_0"):
        if key in arrays:
            return split(path.stem, *_pair(arrays, key, "y" if "y" in arrays else "labels", path))
    raise invalid(
        "data",
        "an array named x_train (with x_test), x, images or arr_0",
        f"{str(path)!r} with {sorted(arrays) or 'no arrays'}",
        "Write it with np.savez(path, x=images).",
    )


def _pair(arrays, x_key, y_key, path):
    """Images as `(N, H, W, C)`, in bytes where nothing is lost by it, and their labels or None."""
    x, y = check_images(arrays[x_key], f"data ({path.name}: {x_key})"), arrays.get(y_key)
    if y is not None and y.shape[:1] != x.shape[:1]:
        expected = f"one label for each of {len(x)} images"
        raise invalid("data", expected, f"{len(y) if y.ndim else 'no list of'} labels in {y_key}")
    if x.ndim == 2:
        x = x[:, None, :]
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype.kind == "f":
        whole = np.rint(x * 255)
        x = whole.astype(np.uint8) if np.abs(whole - x * 255).max() < 1e-3 else x.astype(np.float32)
    return x, y


# Folders.


def _read_folder(folder):
    """Every file below `folder`, in sorted order; a sub-folder's name is its images' label.

    Names that begin with a dot are passed over.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [p for p in paths if not any(part[0] == "." for part in p.relative_to(folder).parts)]
    if not paths:
        received = f"{str(folder)!r}, which holds no files"
        raise invalid("data", "a folder with images in it", received)
    images = [_read_image(path, folder) for path in paths]
    if len({image.shape[2] for image in images}) > 1:  # grey among colours
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in images]
    _check_sizes(images, [path.relative_to(folder) for path in paths])
    names = np.array([str(path.parent.relative_to(folder)) for path in paths])
    return np.stack(images), names if len(set(names)) > 1 else None


def _check_sizes(images, paths):
    """Refuse images of several sizes, with an example of each."""
    paths_of = collections.defaultdict(list)
    for path, image in zip(paths, images, strict=True):
        paths_of[image.shape[:2]].append(path)
    if len(paths_of) > 1:
        received = ", ".join(
            f"{len(same)} of {height}×{width} (such as {same[0]})"
            for (height, width), same in sorted(paths_of.items(), key=lambda item: -len(item[1]))
        )
        raise invalid("data", "images of one size", received, "Bring them to one size first.")


def _read_image(path, folder):
    """One image file as bytes `(H, W, 1)` or `(H, W, 3)`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
            grey = image.mode in ("1", "L", "LA")
            pixels = np.array(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise invalid(
            "data",
            "a folder that holds image files only",
            f"{str(path.relative_to(folder))!r}, which cannot be read as an image{why}",
            "Convert it, move it away, or give another folder.",
        ) from error
    return pixels.reshape(*pixels.shape[:2], -1)
