"""An autoregressive network over a map of codes: gated masked convolutions."""

import keras
import numpy as np
from keras import layers, ops

from vae_tf.errors import check_choice, invalid
from vae_tf.networks import seeds_of, with_seed

SEE = ("above", "to_row", "left", "to_left")


@keras.saving.register_keras_serializable(package="vae_tf")
class MaskedConv2D(layers.Conv2D):
    """A convolution that does not see what comes after a place in the order of reading.

    Args:
        see: how far an output sees: "above", the rows above its own; "to_row", these and its own row;
            "left", what is left of it in its row; "to_left", that and its own place.
        args, kwargs: as for Keras's `Conv2D`, of stride 1 with the padding "same".

    Source: van den Oord et al. (2016), "Conditional Image Generation with PixelCNN Decoders",
    sections 2.1 and 2.2.
    """

    def __init__(self, *args, see, **kwargs):
        super().__init__(*args, **{**kwargs, "padding": "same", "data_format": "channels_last"})
        self.see = check_choice("see", see, SEE)
        if any(size % 2 == 0 for size in self.kernel_size) or set(self.strides) != {1}:
            received = f"kernel_size={self.kernel_size}, strides={self.strides}"
            raise invalid("kernel_size", "odd sizes, which have a middle, and stride 1", received)

    def build(self, input_shape):
        super().build(input_shape)
        height, width = self.kernel_size
        mask = np.zeros((height, width, 1, 1), "float32")
        row, column = height // 2, width // 2
        mask[:row] = self.see in ("above", "to_row")
        mask[row] = self.see == "to_row"
        mask[row, :column] = self.see != "above"
        mask[row, column] = self.see in ("to_row", "to_left")
        self.mask = mask

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel * ops.cast(self.mask, kernel.dtype))

    def get_config(self):
        return {**super().get_config(), "see": self.see}


def code_prior_network(
    map_shape, num_embeddings, filters=64, num_layers=6, kernel_size=3, seed=None
):
    """Codes -> logits of each code given those before it, row by row from the top left.

    Two stacks go through the map: `above` sees the rows above, and hands what it sees to `left`, which
    sees what is left of a place in its row. Each layer is gated, tanh(a)·σ(b).

    Args:
        map_shape: `(height, width)` of the codes.
        num_embeddings: how many codes there are.
        filters, num_layers, kernel_size: of the gated convolutions. One layer of size 3 sees a row
            and a column further than the layer before: 6 layers see all of a map of 7×7.
        seed: fixes the initial weights.

    Returns:
        A `keras.Model` from int32 `(batch, height, width)` to float32 `(batch, height, width,
        num_embeddings)`.

    Source: van den Oord et al. (2016), figure 2 and equation 2.
    """
    seeds = seeds_of(seed)

    def conv(kernel_size, see=None, units=2 * filters):
        kernel = with_seed("glorot_uniform", seeds)
        if see is None:
            return layers.Conv2D(units, kernel_size, kernel_initializer=kernel)
        return MaskedConv2D(units, kernel_size, see=see, kernel_initializer=kernel)

    def embedded(codes):
        initializer = with_seed("uniform", seeds)
        return layers.Embedding(num_embeddings, filters, embeddings_initializer=initializer)(codes)

    codes = keras.Input(tuple(map_shape), dtype="int32", name="codes")
    hidden, seen = embedded(codes), []
    for index in range(num_layers):
        hidden = conv(kernel_size, "to_row" if index else "above")(hidden)
        seen.append(conv(1)(hidden))
        hidden = _gated(hidden)
    above = keras.Model(codes, seen, name="above")

    rows = keras.Input((None, map_shape[1]), dtype="int32", name="rows")
    seen = [keras.Input((None, *part.shape[2:])) for part in seen]
    hidden = embedded(rows)
    for index, part in enumerate(seen):
        row = conv((1, kernel_size), "to_left" if index else "left")(hidden)
        gated = conv(1, units=filters)(_gated(layers.add([row, part])))
        hidden = layers.add([hidden, gated]) if index else gated
    hidden = layers.ReLU()(conv(1, units=filters)(layers.ReLU()(hidden)))
    last = layers.Conv2D(
        num_embeddings, 1, kernel_initializer="zeros", dtype="float32", name="logits"
    )
    left = keras.Model([rows, *seen], last(hidden), name="left")
    return keras.Model(codes, left([codes, *above(codes)]), name="code_prior")


def sizes_of(network):
    """`filters` and `num_layers` of a `code_prior_network`."""
    left = network.get_layer("left")
    filters = next(layer for layer in left.layers if isinstance(layer, layers.Embedding)).output_dim
    return {"filters": filters, "num_layers": len(left.inputs) - 1}


def log_prob(network, codes):
    """log p(k) of codes `(batch, height, width)` by a `code_prior_network`, in nats for each map."""
    logits = network(codes)
    chosen = ops.one_hot(codes, logits.shape[-1])
    return ops.sum(chosen * ops.log_softmax(logits, axis=-1), axis=(1, 2, 3))


def draw_codes(network, uniform):
    """Codes drawn one after another, each given those before it.

    What is seen above is computed once a row, and what is seen left of a place in that row alone.

    Args:
        network: a `code_prior_network`.
        uniform: numbers between 0 and 1, `(batch, height, width)`, which fix the draws.

    Returns:
        int32, of the same shape.
    """
    above, left = network.get_layer("above"), network.get_layer("left")
    num, height, width = ops.shape(uniform)

    def draw_row(row, codes):
        seen = [ops.take(part, row, axis=1)[:, None] for part in above(codes)]
        numbers = ops.take(uniform, row, axis=1)

        def draw(column, codes):
            logits = ops.take(left([codes[:, None], *seen])[:, 0], column, axis=1)
            share = ops.cumsum(ops.softmax(logits), axis=-1)
            below = share < ops.take(numbers, column, axis=1)[:, None] * share[:, -1:]
            code = ops.sum(ops.cast(below, "int32"), axis=-1, keepdims=True)
            return ops.where(ops.arange(width) == column, code, codes)

        drawn = ops.fori_loop(0, width, draw, ops.zeros((num, width), "int32"))
        return ops.where(ops.arange(height)[:, None] == row, drawn[:, None], codes)

    return ops.fori_loop(0, height, draw_row, ops.zeros((num, height, width), "int32"))


def _gated(both):
    a, b = ops.split(both, 2, axis=-1)
    return ops.tanh(a) * ops.sigmoid(b)
