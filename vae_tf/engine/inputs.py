"""What `fit`, `evaluate` and `predict` are given: checked before anything is computed."""

import keras
import numpy as np
import tensorflow as tf

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
        raise invalid(
            argument,
            "an array or a tf.data.Dataset",
            f"{type(x).__name__}",
            "A generator becomes one by tf.data.Dataset.from_generator.",
            kind=InvalidTypeError,
        )
    else:
        x = model.checked(np.asarray(x), argument)
        y = checked_condition(model, x, y, y_argument)
        build(model, x.shape)
        return x, y, (x[:100],) if y is None else (x[:100], y[:100])
    if first is None:
        raise invalid(argument, "at least one batch", "an empty data set")
    images, *condition = model.step_inputs(_local(first))
    images = model.checked(np.asarray(images), f"{argument} (first batch)")
    build(model, images.shape)
    return x, None, (images[:100], *(np.asarray(c)[:100] for c in condition))


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
