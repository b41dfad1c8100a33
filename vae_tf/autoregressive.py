"""An autoregressive network over a map of codes: gated masked convolutions."""

import keras
import numpy as np
from keras import layers, ops

from vae_tf.networks import seeds_of, with_seed


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
        self.see = see

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

    def call(self, inputs):
        kernel = ops.cast(self.kernel * self.mask, self.compute_dtype)
        outputs = ops.conv(inputs, kernel, padding="same", data_format="channels_last")
        return outputs + ops.cast(self.bias, outputs.dtype)

    def get_config(self):
        return {**super().get_config(), "see": self.see}


def code_prior_network(
    map_shape, num_embeddings, filters=64, num_layers=6, kernel_size=3, seed=None
):
    """Codes -> logits of each code given those before it, row by row from the top left.

    Two stacks go through the map: one sees the rows above, and hands what it sees to the other, which
    sees what is left of a place. Each layer is gated, tanh(a)·σ(b).

    Args:
        map_shape: `(height, width)` of the codes.
        num_embeddings: how many codes there are.
        filters, num_layers, kernel_size: of the gated convolutions.
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

    inputs = keras.Input(tuple(map_shape), dtype="int32", name="codes")
    embedding = layers.Embedding(
        num_embeddings, filters, embeddings_initializer=with_seed("uniform", seeds)
    )
    above = left = embedding(inputs)
    for index in range(num_layers):
        first = index == 0
        above = conv(kernel_size, "above" if first else "to_row")(above)
        row = conv((1, kernel_size), "left" if first else "to_left")(left)
        gated = _gated(layers.add([row, conv(1)(above)]))
        gated = conv(1, units=filters)(gated)
        left = gated if first else layers.add([left, gated])
        above = _gated(above)
    hidden = layers.ReLU()(conv(1, units=filters)(layers.ReLU()(left)))
    last = layers.Conv2D(
        num_embeddings, 1, kernel_initializer="zeros", dtype="float32", name="logits"
    )
    return keras.Model(inputs, last(hidden), name="code_prior")


def _gated(both):
    a, b = ops.split(both, 2, axis=-1)
    return ops.tanh(a) * ops.sigmoid(b)
