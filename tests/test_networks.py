"""Encoders and decoders: their shapes, their initial weights, and convolutions compiled by XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from vae_tf.errors import InvalidValueError
from vae_tf.likelihoods import DiscretizedLogistic
from vae_tf.networks import conv_decoder, conv_encoder, dense_decoder, dense_encoder

LATENT = 3
SHAPES = [(28, 28), (28, 28, 1), (32, 48, 3), (64, 64, 3), (8, 12)]
every_network = pytest.mark.parametrize(
    ("encoder", "decoder"),
    [(dense_encoder, dense_decoder), (conv_encoder, conv_decoder)],
    ids=["dense", "conv"],
)


@every_network
@pytest.mark.parametrize("image_shape", SHAPES)
def test_shapes(encoder, decoder, image_shape):
    encoder, decoder = encoder(image_shape, LATENT), decoder(LATENT, image_shape)
    assert encoder.input_shape == (None, *image_shape)
    assert encoder.output_shape == [(None, LATENT)] * 2
    assert decoder.input_shape == (None, LATENT)
    assert decoder.output_shape == (None, *image_shape)
    z_mean, z_log_var = encoder(np.zeros((2, *image_shape), "float32"))
    assert z_mean.shape == z_log_var.shape == (2, LATENT)
    assert decoder(z_mean).shape == (2, *image_shape)


@every_network
@pytest.mark.parametrize("image_shape", [(8, 8), (8, 8, 3)])
def test_two_parameters_a_pixel(encoder, decoder, image_shape):
    shape = DiscretizedLogistic().parameter_shape(image_shape)
    parameters = decoder(LATENT, shape)(np.ones((2, LATENT), "float32"))
    assert parameters.shape == (2, *image_shape, 2)
    assert DiscretizedLogistic()(parameters).shape == (2, *image_shape)


@every_network
def test_the_seed_fixes_the_initial_weights_and_each_layer_has_its_own(encoder, decoder):
    for make in (lambda seed: encoder((8, 8), LATENT, seed=seed),
                 lambda seed: decoder(LATENT, (8, 8), seed=seed)):  # fmt: skip
        first, second, other = (make(seed).get_weights() for seed in (1, 1, 2))
        for one, two, three in zip(first, second, other, strict=True):
            np.testing.assert_array_equal(one, two)
            assert one.ndim == 1 or not np.array_equal(one, three)  # biases are zero
        assert not np.array_equal(*(make(None).get_weights()[0] for _ in range(2)))
    layers = conv_encoder((8, 8, 4), LATENT, filters=(4, 4), seed=1).layers
    kernels = [layer.kernel for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert not np.array_equal(*kernels)


def test_the_names_of_layers_are_unique_in_an_encoder_and_a_decoder():
    """Keras names an optimizer's variables by their layers, and an .h5 file needs unique names."""
    for networks in ((dense_encoder((8, 8), 2), dense_decoder(2, (8, 8))),
                     (conv_encoder((8, 8), 2), conv_decoder(2, (8, 8)))):  # fmt: skip
        paths = [weight.path for network in networks for weight in network.weights]
        assert len(set(paths)) == len(paths) > 5


def test_layers_of_the_convolutional_networks():
    encoder = conv_encoder((28, 28), 10, filters=(32, 64), activation="gelu")
    shapes = [tuple(weight.shape) for weight in encoder.weights]
    assert shapes == [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (7 * 7 * 64, 20), (20,)]
    decoder = conv_decoder(10, (28, 28), filters=(64, 32), activation="gelu")
    shapes = [tuple(weight.shape) for weight in decoder.weights]
    assert shapes == [
        (10, 7 * 7 * 64), (7 * 7 * 64,), (3, 3, 64, 64), (64,), (3, 3, 32, 64), (32,),
        (3, 3, 32, 1), (1,),
    ]  # fmt: skip
    for network in (encoder, decoder):
        names = [
            layer.activation.__name__ for layer in network.layers if hasattr(layer, "activation")
        ]
        assert set(names[:-1]) == {"gelu"}
        assert names[-1] == "linear"


def test_the_encoder_is_convolutions_of_the_image():
    """By SciPy, with the padding of TensorFlow's "same" at stride 2: one row below, one to the right."""
    encoder = conv_encoder((8, 8), 1, filters=(2, 3), activation="relu", seed=0)
    x = np.random.default_rng(0).random((8, 8))
    maps = x[:, :, None]
    kernels = [weight.numpy() for weight in encoder.weights if len(weight.shape) == 4]
    for kernel in kernels:
        padded = np.pad(maps, ((0, 1), (0, 1), (0, 0)))
        maps = np.stack([
            sum(signal.correlate2d(padded[..., i], kernel[..., i, o], "valid")
                for i in range(kernel.shape[2]))[::2, ::2]
            for o in range(kernel.shape[3])
        ], axis=-1).clip(0)  # fmt: skip
    expected = maps.reshape(-1) @ encoder.weights[-2].numpy()
    np.testing.assert_allclose(np.ravel(encoder(np.float32(x)[None])), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("image_shape", "filters", "words"),
    [
        ((30, 30), (32, 64), "4 divides.*30x30: nearest 28x28 or 32x32"),
        ((28, 30, 1), (32, 64), "28x30: nearest 28x28 or 28x32"),
        ((28, 28), (8, 8, 8), "8 divides.*28x28: nearest 24x24 or 32x32.*resize='24x24'"),
        ((2, 9), (8, 8), "2x9: nearest 4x12"),
        ((784,), (32, 64), r"\(height, width\).*dense network"),
    ],
)
def test_sizes_that_do_not_divide(image_shape, filters, words):
    with pytest.raises(InvalidValueError, match=f"image_shape.*{words}"):
        conv_encoder(image_shape, LATENT, filters=filters)
    with pytest.raises(InvalidValueError, match=f"output_shape.*{words}"):
        conv_decoder(LATENT, image_shape, filters=filters[::-1])


@pytest.mark.parametrize("image_shape", [(28, 28), (16, 16, 3)])
def test_gradients_of_convolutions_compiled_by_xla_are_those_of_tensorflow(image_shape):
    encoder = conv_encoder(image_shape, LATENT, seed=0)
    decoder = conv_decoder(LATENT, image_shape, seed=1)
    weights = encoder.trainable_weights + decoder.trainable_weights
    x = tf.constant(np.random.default_rng(0).random((5, *image_shape)), tf.float32)

    def gradients(x):
        with tf.GradientTape() as tape:
            z_mean, z_log_var = encoder(x)
            loss = tf.reduce_mean((decoder(z_mean + z_log_var) - x) ** 2)
        return tape.gradient(loss, [weight.value for weight in weights])

    compiled = tf.function(gradients, jit_compile=True)(x)
    for weight, one, other in zip(weights, compiled, gradients(x), strict=True):
        assert np.abs(other).max() > 0, weight.path
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max(), err_msg=weight.path)


@every_network
def test_networks_follow_the_dtype_policy_and_are_saved(encoder, decoder, tmp_path):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        networks = encoder((8, 8), LATENT), decoder(LATENT, (8, 8))
    finally:
        keras.config.set_dtype_policy(before)
    for network in networks:
        assert all(weight.dtype == "float32" for weight in network.weights)
        inputs = np.random.default_rng(0).random((2, *network.input_shape[1:]), "float32")
        outputs = network(inputs)
        network.save(tmp_path / "network.keras")
        restored = keras.models.load_model(tmp_path / "network.keras")(inputs)
        for one, other in zip(tf.nest.flatten(outputs), tf.nest.flatten(restored), strict=True):
            assert one.dtype == "bfloat16"
            np.testing.assert_array_equal(tf.cast(one, tf.float32), tf.cast(other, tf.float32))
