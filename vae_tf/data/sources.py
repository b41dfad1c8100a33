"""Images by name: scikit-learn's digits, and any image data set of tensorflow-datasets."""

import contextlib
import logging
import pathlib
import sys

import numpy as np

from vae_tf.data.images import Images, split
from vae_tf.data.local import load_path
from vae_tf.errors import InvalidTypeError, invalid


def load(dataset="digits", data=None):
    """Load images by name or from a path.

    Args:
        dataset: `"digits"` (scikit-learn's, 8×8, no download) or the name of any image data set of
            tensorflow-datasets, such as `"mnist"`. The environment's TFDS_DATA_DIR is honoured.
        data: a `.npz` file or a folder of images; then `dataset` is not used.

    Returns:
        `Images`, with the bytes 0 to 255 kept as uint8.

    Raises:
        ValueError: what is there cannot be used; the message says why and what to do.

    Example:
        >>> load("digits").image_shape
        (8, 8, 1)
    """
    if data is not None:
        return load_path(pathlib.Path(data))
    if not isinstance(dataset, str):
        raise invalid("dataset", "a name", repr(dataset), kind=InvalidTypeError)
    if dataset == "digits":
        return _load_digits()
    return _load_tfds(dataset)


def _load_digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()  # 1797 images with grey values 0 to 16
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return Images("digits", x_train, x_test, y_train, y_test)


def _load_tfds(name):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise invalid(
            "dataset",
            "'digits' or the name of an image data set of tensorflow-datasets",
            repr(name),
            f"{_similar(name, tfds)}For your own images give --data FILE.npz or --data FOLDER.",
        ) from error
    _check_image_features(builder, name)
    _prepare(builder, name)
    x_train, y_train = _read(builder, "train")
    if "test" in builder.info.splits:
        x_test, y_test = _read(builder, "test")
        return Images(name, x_train, x_test, y_train, y_test)
    return split(name, x_train, y_train)


def _similar(name, tfds):
    import difflib

    near = difflib.get_close_matches(name, [*tfds.list_builders(), "digits"], n=3)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""


def _check_image_features(builder, name):
    """Refuse what has no images, or images of many sizes, before anything is downloaded."""
    features, splits = builder.info.features, sorted(builder.info.splits)
    if "image" not in features or (splits and "train" not in splits):
        received = f"{name!r} with features {sorted(features)} and splits {splits}"
        raise invalid("dataset", "a data set with a feature 'image' and a split 'train'", received)
    if None in features["image"].shape:
        raise invalid(
            "dataset",
            "a data set whose images all have one size",
            f"{name!r} with images of shape {features['image'].shape}",
            "Bring the images to one size, and give them as --data FILE.npz or --data FOLDER.",
        )


def _prepare(builder, name):
    """Download a data set that is not here, and say so."""
    if builder.data_path.exists():
        return
    print(
        f"{name}: not here yet; downloading to {builder.data_dir} ...", file=sys.stderr, flush=True
    )
    try:
        with _without_retries_in_the_log():
            builder.download_and_prepare()
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else "no message"
        raise invalid(
            "dataset",
            "a data set that is on this machine or can be downloaded",
            f"{name!r}, and tensorflow-datasets could not prepare it in {builder.data_dir} "
            f"({type(error).__name__}: {words})",
            "Check the network, or set TFDS_DATA_DIR to a directory that holds it. Without a network, "
            "--dataset digits comes with the installation and --data takes your own images.",
        ) from error


@contextlib.contextmanager
def _without_retries_in_the_log():
    """urllib3 would name every retry of every file."""
    logger = logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _read(builder, part):
    """All images of a split as one array, and the labels where there are any."""
    import tensorflow_datasets as tfds

    labels = "label" in builder.info.features
    dataset = builder.as_dataset(split=part, shuffle_files=False)
    dataset = dataset.map(lambda row: (row["image"], row["label"] if labels else 0)).batch(1000)
    x, y = zip(*tfds.as_numpy(dataset), strict=True)
    return np.concatenate(x), np.concatenate(y) if labels else None
