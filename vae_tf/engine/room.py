"""Whether a model, its batches and its images fit into memory, asked before they take it."""

import contextlib
import math

import keras
import numpy as np
import tensorflow as tf

from vae_tf import memory
from vae_tf.errors import as_typed

TRAINED = 4  # a weight that is trained: itself, its gradient and Adam's two moments
FLOAT = 4  # bytes


@contextlib.contextmanager
def for_weights(image_shape, trained):
    """In the block, weights that do not fit into memory are refused before they are made.

    Args:
        image_shape: for the message.
        trained: whether gradients and moments are to come.
    """
    size, copies = 0, TRAINED if trained else 1

    def create(next_creator, **kwargs):
        nonlocal size
        shape = _shape(kwargs["initial_value"])
        made, size = size, size + FLOAT * math.prod(shape)
        with_what = ", with its gradient and Adam's moments" if trained else ""
        received = f"{_by(image_shape)}, of which a layer makes {_by(shape)} weights{with_what}"
        memory.check_fits("image_shape", copies * size - made, received, _smaller())
        return next_creator(**kwargs)

    with contextlib.nullcontext() if _on_gpu() else tf.variable_creator_scope(create):
        yield


def check_batch(model, x, rows):
    """Refuse a batch whose layers' outputs, kept for the gradient, do not fit, or a copy of the images.

    Args:
        model: a model that is built.
        x: what it is trained on; an array is copied for the loop.
        rows: images in a batch.
    """
    if _on_gpu():
        return
    parts = [layer for layer in model._flatten_layers() if hasattr(layer, "operations")]
    tensors = keras.tree.flatten([each.output for part in parts for each in part.operations])
    shapes = [[side or 1 for side in tensor.shape[1:]] for tensor in tensors]
    size = FLOAT * rows * sum(map(math.prod, shapes))
    received = f"{rows} images of {_by(model.image_shape)} at once, for the outputs of all layers"
    fewer = max(1, (memory.free() or 0) * rows // max(size, 1) // 2)
    hint = f"{as_typed('batch_size', fewer)} takes less. {_smaller()}"
    memory.check_fits("batch_size", size, received, hint)
    if isinstance(x, np.ndarray):
        memory.check_fits("x", x.nbytes, f"{len(x)} images of {_by(x.shape[1:])}", _smaller())


def _shape(value):
    """The shape of a variable's first value, which is made after this by a function of Keras's."""
    if not callable(value):
        return np.shape(value)
    for cell in getattr(value, "__closure__", None) or ():
        if isinstance(cell.cell_contents, keras.Variable):
            return tuple(cell.cell_contents.shape)
    with tf.Graph().as_default():  # traced, and not run
        return tuple(value().shape)


def _smaller():
    return f"Smaller images take less ({as_typed('resize', 64)}), and so do fewer units or filters."


def _by(shape):
    return "×".join(map(str, shape))


def _on_gpu():
    """A GPU's memory is its own."""
    return bool(tf.config.list_physical_devices("GPU"))
