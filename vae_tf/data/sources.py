"""Images by name: scikit-learn's digits, sprites, and any image data set of tensorflow-datasets."""

import logging
import pathlib
import sys

import numpy as np

from vae_tf.data import EMBEDDED
from vae_tf.data.images import Images, split
from vae_tf.data.local import load_path
from vae_tf.data.sizes import check_room, check_size, resized, resized_all
from vae_tf.data.sprites import load_sprites
from vae_tf.errors import InvalidTypeError, as_typed, invalid, only_from


def load(dataset="digits", data=None, resize=None, background=None, value_range=(0.0, 1.0)):
    """Load images by name or from a path.

    Args:
        dataset: `"digits"` (scikit-learn's, 8×8), `"sprites"` (32×32, with known factors), neither of which
            is downloaded, or the name of any image data set of tensorflow-datasets, such as `"mnist"`. The
            environment's TFDS_DATA_DIR is honoured.
        data: a `.npz` or `.npy` file or a folder of images; then `dataset` is not used.
        resize: 64, `(height, width)` or "64x48": images are scaled until they cover this size, and cut
            to their centre.
        background: the colour behind transparent image files, such as "white".
        value_range: the least and the largest float; a Gaussian likelihood takes any.

    Returns:
        `Images`, with the bytes 0 to 255 kept as uint8.

    Raises:
        ValueError: what is there cannot be used; the message says why and what to do.

    Example:
        >>> load("digits").image_shape
        (8, 8, 1)
    """
    size = None if resize is None else check_size("resize", resize)
    if data is not None:
        return load_path(pathlib.Path(data), size, background, value_range)
    if check_name("dataset", dataset) in EMBEDDED:
        images = {"digits": _load_digits, "sprites": load_sprites}[dataset]()
        return images.mapped(lambda x: resized_all(x, size))
    return _load_tfds(dataset, size)


def _load_digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()  # 1797 images with grey values 0 to 16
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return Images("digits", x_train, x_test, y_train, y_test)


def _load_tfds(name, size):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise invalid(
            "dataset",
            "'digits', 'sprites' or the name of an image data set of tensorflow-datasets",
            repr(name),
            f"{_similar(name, tfds)}For your own images give {as_typed('data', 'FILE.npz')} or "
            f"{as_typed('data', 'FOLDER')}.",
        ) from error
    _check_image_features(builder, name, size)
    _prepare(builder, name)
    x_train, y_train = _read(builder, "train", size)
    if "test" in builder.info.splits:
        x_test, y_test = _read(builder, "test", size)
        return Images(name, x_train, x_test, y_train, y_test)
    return split(name, x_train, y_train)


def check_name(argument, name):
    """Return the name of a data set, or say how a path is given."""
    if not isinstance(name, str):
        raise invalid(argument, "a name", repr(name), kind=InvalidTypeError)
    path = pathlib.Path(name)
    if path.suffix.lower() in (".npz", ".npy") or (len(path.parts) > 1 and path.is_dir()):
        hint = f"A path is given as {as_typed('data', name)}."
        raise invalid(
            argument, "'digits', 'sprites' or a name in tensorflow-datasets", repr(name), hint
        )
    return name


def _similar(name, tfds):
    import difflib

    if name and pathlib.Path(name).is_dir():
        return f"The folder is given as {as_typed('data', name)}. "
    near = difflib.get_close_matches(name, [*tfds.list_builders(), *EMBEDDED], n=3)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""


def _check_image_features(builder, name, size):
    """Refuse what has no images, or images of many sizes, before anything is downloaded."""
    features, splits = builder.info.features, sorted(builder.info.splits)
    if "image" not in features or (splits and "train" not in splits):
        received = f"{name!r} with features {sorted(features)} and splits {splits}"
        raise invalid("dataset", "a data set with a feature 'image' and a split 'train'", received)
    if None in features["image"].shape and size is None:
        raise invalid(
            "dataset",
            "a data set whose images all have one size",
            f"{name!r} with images of shape {features['image'].shape}",
            f"Bring them to one: {as_typed('resize', 64)}, for example.",
        )


def _prepare(builder, name):
    """Download a data set that is not here, and say so."""
    if builder.data_path.exists():
        return
    print(
        f"{name}: not here yet; downloading to {builder.data_dir} ...", file=sys.stderr, flush=True
    )
    try:
        with only_from("ERROR", logging.getLogger("urllib3")):  # it would name every retry
            builder.download_and_prepare()
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else "no message"
        raise invalid(
            "dataset",
            "a data set that is on this machine or can be downloaded",
            f"{name!r}, and tensorflow-datasets could not prepare it in {builder.data_dir} "
            f"({type(error).__name__}: {words})",
            "Check the network, or set TFDS_DATA_DIR to a directory that holds it. Without a network, "
            f"{as_typed('dataset', 'digits')} comes with the installation, and "
            f"{as_typed('data', 'FOLDER')} takes your own images.",
        ) from error


def _read(builder, part, size):
    """All images of a split as one array, and the labels where there are any."""
    import tensorflow_datasets as tfds

    features, splits = builder.info.features, builder.info.splits
    if part in splits:
        shape = (*(size or features["image"].shape[:2]), features["image"].shape[2])
        check_room(splits[part].num_examples, shape)
    labels = "label" in features
    rows = builder.as_dataset(split=part, shuffle_files=False)
    rows = rows.map(lambda row: (row["image"], row["label"] if labels else 0))
    if size is None:
        x, y = zip(*tfds.as_numpy(rows.batch(1000)), strict=True)
        x, y = np.concatenate(x), np.concatenate(y)
    else:
        x, y = zip(
            *((resized(image, size), label) for image, label in tfds.as_numpy(rows)), strict=True
        )
        x, y = np.stack(x), np.array(y)
    return x, y if labels else None
