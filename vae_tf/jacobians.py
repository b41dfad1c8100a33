"""The squared size of a network's Jacobian, which `keras.ops` has no word for."""

import tensorflow as tf
from keras import ops


def squared_norm(function, x, directions):
    """Σ of ‖vᵀ ∂h/∂x‖² over directions v of h: with the unit vectors it is ‖∂h/∂x‖²_F.

    The rows vᵀ ∂h/∂x come from one gradient over a batch that holds each image once for each direction.

    Args:
        function: from images `(n, ...)` to codes h, `(n, dim)`; a row depends on its image alone.
        x: images, `(batch, ...)`.
        directions: `(num, batch, dim)`.

    Returns:
        `(num, batch)`: ‖vᵀ ∂h/∂x‖² of each direction and image.
    """
    num = ops.shape(directions)[0]
    repeated = ops.reshape(ops.broadcast_to(x, (num, *ops.shape(x))), (-1, *x.shape[1:]))
    with tf.GradientTape() as tape:
        tape.watch(repeated)
        code = function(repeated)
        along = ops.sum(code * ops.reshape(ops.cast(directions, code.dtype), ops.shape(code)))
    rows = tape.gradient(along, repeated)
    squares = ops.sum(
        ops.reshape(ops.square(ops.cast(rows, "float32")), (ops.shape(rows)[0], -1)), -1
    )
    return ops.reshape(squares, (num, -1))
