"""Labels as a conditional model takes them: whole numbers from 0."""

import dataclasses

import numpy as np

from vae_tf.errors import invalid

_PARTS = ("y_train", "y_test", "y_val")


def class_names(images):
    """The classes' names in their order, where labels are names; None where they are numbers.

    Raises:
        ValueError: there are no labels, or they are neither.
    """
    labels = [y for y in (getattr(images, part) for part in _PARTS) if y is not None]
    if images.y_train is None or images.y_test is None:
        raise invalid("data", "images with labels, which the model is conditioned on", "none")
    every = np.concatenate([np.asarray(y) for y in labels])
    if every.dtype.kind in "ui" and every.ndim == 1:
        return None
    if every.dtype.kind not in "US":
        expected = "labels that are whole numbers or names"
        raise invalid("data", expected, f"labels of {every.dtype}, shape {every.shape}")
    return [str(name) for name in np.unique(every)]


def numbered(images, names):
    """`Images` whose labels are the numbers of their names; as they are where `names` is None.

    Raises:
        ValueError: an image has a label that is none of `names`.
    """
    if names is None:
        return images
    parts = {part: getattr(images, part) for part in _PARTS}
    found = {part: _numbers(y, names) for part, y in parts.items() if y is not None}
    return dataclasses.replace(images, **found)


def num_classes(images):
    """One more than the largest label."""
    return 1 + max(int(np.max(getattr(images, part))) for part in ("y_train", "y_test"))


def _numbers(labels, names):
    number = {name: index for index, name in enumerate(names)}
    if unknown := sorted({str(label) for label in labels} - number.keys()):
        raise invalid("data", f"labels that are some of {', '.join(names)}", unknown[0])
    return np.array([number[str(label)] for label in labels], "int64")
