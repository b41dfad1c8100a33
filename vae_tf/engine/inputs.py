"""What `fit`, `evaluate` and `predict` are given: checked before anything is computed."""

import keras
import numpy as np
import tensorflow as tf

from vae_tf import data
from vae_tf.errors import InvalidTypeError, invalid


def checked_arguments(model, x, y, kwargs):
    """`(x, y, kwargs, first)`: arrays checked whole, data sets by their first batch, which is `first`.

    `y` is the model's condition where it has one, and is left out where not. The model is built.
    """
    weights = {k: kwargs.get(k) for k in ("sample_weight", "class_weight")}
    refuse_weights(**weights)
    kwargs = {k: v for k, v in kwargs.items() if k not in weights}
    x, y, first = checked_source(model, x, y, "x", "y")
    if kwargs.get("validation_data") is not None:
        held, labels, weight = keras.utils.unpack_x_y_sample_weight(kwargs["validation_data"])
        if weight is not None:
            raise refused("sample_weight", "a third element of validation_data")
        held, labels, _ = checked_source(model, held, labels, "validation_data", "validation_data")
        kwargs["validation_data"] = held if labels is None else (held, labels)
    return x, y, kwargs, first


def checked_source(model, x, y, argument, y_argument):
    """`(x, y, first)`; the model is built to the shape of the images."""
    if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
        first = next(iter(x.take(1) if isinstance(x, tf.data.Dataset) else x), None)
    elif isinstance(x, keras.utils.PyDataset):
        first = x[0] if len(x) else None
    elif hasattr(x, "__next__") or isinstance(x, dict) or x is None:
        hint = "A generator becomes one by tf.data.Dataset.from_generator."
        if isinstance(x, dict):
            hint = f"Give the images alone: x[{_image_key(x)!r}]."
        received, expected = type(x).__name__, "an array or a tf.data.Dataset"
        raise invalid(argument, expected, received, hint, kind=InvalidTypeError)
    else:
        x = model.checked(np.asarray(x), argument)
        y = checked_condition(model, x, y, y_argument)
        build(model, x.shape)
        return x, y, (x[:100],) if y is None else (x[:100], y[:100])
    if first is None:
        raise invalid(argument, "at least one batch", "an empty data set")
    _check_batch(model, x, _local(first), argument)
    images, *condition = model.step_inputs(_local(first))
    images = model.checked(np.asarray(images), f"{argument} (first batch)")
    build(model, images.shape)
    return x, None, (images[:100], *(np.asarray(c)[:100] for c in condition))


def _check_batch(model, x, first, argument):
    """Refuse what a data set gives where it is no batch: single images, or dictionaries."""
    images, *labels = first if isinstance(first, (tuple, list)) else (first,)
    if isinstance(images, dict):
        image, keys = _image_key(images), sorted(images)
        label = next((key for key in ("label", "labels", "y") if key in keys), "label")
        row = f"row[{image!r}]" if model.condition is None else f"(row[{image!r}], row[{label!r}])"
        single = _is_single(model, x, images[image], [images[key] for key in keys if key != image])
        batch = ".batch(100)" if single else ""
        raise invalid(
            argument,
            "a data set of batches x, (x,) or (x, y)",
            f"dictionaries with the keys {keys}",
            f"Take the images out: dataset.map(lambda row: {row}){batch}.",
        )
    if _is_single(model, x, images, labels):
        received = f"a data set of single images, of shape {tuple(np.shape(images))}"
        hint = "Batch it first: dataset.batch(100)."
        raise invalid(argument, "batches of images", received, hint)


def _is_single(model, x, images, labels):
    """Whether what a data set gives is one image: by its label, by the model, or by its looks."""
    shape = tuple(np.shape(images))
    if len(shape) < 2 or any(np.ndim(label) == 0 for label in tf.nest.flatten(labels)):
        return True
    if model.built:
        return shape == model.image_shape
    if not isinstance(x, tf.data.Dataset):
        return False
    shapes = [spec.shape for spec in tf.nest.flatten(x.element_spec)]
    varies = any(size.rank and size[0] is None for size in shapes)  # as the last batch's size does
    return not varies and _is_picture(shape)


def _is_picture(shape):
    """Whether a shape looks like one image's, and not like a batch's."""
    if len(shape) == 2:
        return shape[0] == shape[1]
    return len(shape) == 3 and shape[2] in data.CHANNELS and min(shape[:2]) > max(data.CHANNELS)


def _image_key(row):
    """The key of a dictionary's images: 'image', or the one whose value has the most axes."""
    return "image" if "image" in row else max(row, key=lambda key: np.ndim(row[key]))


def _local(batch):
    """The first replica's part of a batch that is spread over several."""
    strategy = tf.distribute.get_strategy()
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], batch)


def checked_condition(model, x, y, argument="y"):
    """The condition of the images `x`, or None for a model without one.

    Raises:
        ValueError: it is missing, or there is not one for each image.
    """
    if y is not None and len(y) != len(x):
        raise invalid(argument, f"one label for each of {len(x)} images", f"{len(y)} labels")
    if model.condition is None:
        return None
    return model.condition.checked(y, argument)


def build(model, shape):
    """Build a model to images of this shape, on the devices that it was made for."""
    if not model.built:
        with model.distribute_strategy.scope():
            model.build((None, *shape[1:]))


def split_validation(x, y, kwargs):
    """Hold out the last part of the arrays, as Keras does."""
    split = kwargs.pop("validation_split", 0.0) or 0.0
    if not split or kwargs.get("validation_data") is not None:
        return x, y, kwargs
    at = int(len(x) * (1 - split))
    if not 0 < at < len(x):
        raise invalid("validation_split", "a fraction that leaves images on both sides", split)
    held = x[at:] if y is None else (x[at:], y[at:])
    return x[:at], None if y is None else y[:at], {**kwargs, "validation_data": held}


def _first_batches(model, dataset, num):
    """The images of so many batches of a data set that they are at least `num`."""
    for batch in dataset:
        images = np.asarray(model.step_inputs(batch)[0])
        yield images
        num -= len(images)
        if num <= 0:
            return


def training_images(model, x, first, numbers=10**7):
    """Images as floats, so many numbers at most: of an array evenly spaced ones, of a data set the first.

    Args:
        first: the first images of what is neither.
    """
    some = max(1, numbers // first[0].size)
    if isinstance(x, np.ndarray):
        first = x[:: -(-len(x) // some)]
    elif isinstance(x, tf.data.Dataset):
        first = np.concatenate(list(_first_batches(model, x, some)))
    return keras.ops.convert_to_numpy(model.to_floats(first))


def num_batches(x, batch_size):
    """How many batches an epoch has; None where that is unknown or without end."""
    if isinstance(x, np.ndarray):
        return -(-len(x) // batch_size)
    if isinstance(x, tf.data.Dataset):
        count = int(x.cardinality())
    else:  # a set that is spread over devices has a property
        count = int(x.cardinality) if hasattr(x, "cardinality") else len(x)
    return count if count and count > 0 else None


def refuse_weights(**weights):
    """Raise for any weights of images or classes."""
    for name, value in weights.items():
        if value is not None:
            raise refused(name, f"{name}=...")


def refused(argument, received):
    """The error for an argument of Keras's that has no place in a model with its own loss."""
    return invalid(
        argument,
        "nothing: the loss is the model's own, the same for each image",
        received,
        "To weigh images, repeat or leave out rows of the data."
        if "weight" in argument
        else "Override `objective` or `terms` in a subclass to change the loss.",
    )
