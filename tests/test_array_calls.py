"""What a user calls of a model, on what users give: arrays, lists, one image alone, codes of another size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from own_models import ConditionalVAE

from vae_tf import VAE
from vae_tf.errors import InvalidTypeError, InvalidValueError

X = blobs(20, (8, 8, 1))
CODES = np.zeros((3, 2))


@pytest.fixture(scope="module")
def model():
    model = VAE(2, (8,), seed=0)
    model.build((None, 8, 8, 1))
    return model


# Before the first image.


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("encode", (X,)),
        ("encode", (tf.constant(X),)),
        ("posterior", (X,)),
        ("posterior", (tf.constant(X),)),
        ("log_weights", (X, 3)),
        ("decode", (CODES,)),
        ("decode", (tf.zeros((3, 2)),)),
        ("code", (X,)),
        ("reconstruct", (X,)),
        ("decode_images", (CODES,)),
        ("interpolate", (X[0], X[1])),
        ("generate", ()),
    ],
)
def test_before_fit_every_call_says_that_it_comes_first(name, arguments):
    asked = "(encode|posterior)" if name == "posterior" else name
    with pytest.raises(
        ValueError, match=f"VAE has not seen an image yet, so `{asked}`.*`fit` first"
    ):
        getattr(VAE(2, (8,)), name)(*arguments)


def test_networks_that_are_given_take_tensors_before_the_model_is_built():
    """As they did: nothing is missing there."""
    x, z = keras.Input((8, 8, 1)), keras.Input((2,))
    hidden = keras.layers.Flatten()(x)
    encoder = keras.Model(x, [keras.layers.Dense(2)(hidden), keras.layers.Dense(2)(hidden)])
    image = keras.layers.Reshape((8, 8, 1))(keras.layers.Dense(64)(z))
    vae = VAE(2, encoder=encoder, decoder=keras.Model(z, image))
    assert [tuple(part.shape) for part in vae.encode(tf.zeros((3, 8, 8, 1)))] == [(3, 2), (3, 2)]
    assert vae.decode(z).shape == (None, 8, 8, 1)


def test_an_error_of_the_models_own_stays_what_it_is(model):
    with pytest.raises(ValueError, match="expected shape"):
        model.decode(tf.zeros((3, 5)))


# Images of another shape.


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (X[0], r"\(N, 8, 8, 1\).*Received: shape \(8, 8, 1\)\. One image alone is x\[None\]\."),
        (X[0, ..., 0], r"One image alone is x\.reshape\(1, 8, 8, 1\)"),
        (X[..., 0], r"shape \(20, 8, 8\)\. x\.reshape\(-1, 8, 8, 1\) has it"),
        (X.reshape(20, -1), r"shape \(20, 64\)\. x\.reshape\(-1, 8, 8, 1\) has it"),
        (X[:, :4], r"shape \(20, 4, 8, 1\)\.$"),
    ],
)
def test_images_of_another_shape_are_refused_with_what_mends_it(model, x, hint):
    calls = (model.encode, model.posterior, model.code, model.reconstruct, model.predict)
    for call in (*calls, lambda x: model.log_weights(x, 2)):
        with pytest.raises(InvalidValueError, match=f"'x'.*{hint}"):
            call(x)


def test_the_hint_is_right(model):
    np.testing.assert_array_equal(model.code(X[0][None]), model.code(X[:1]))
    np.testing.assert_array_equal(model.code(X[..., 0].reshape(-1, 8, 8, 1)), model.code(X))


@pytest.mark.parametrize("call", ["encode", "code", "reconstruct", "posterior"])
@pytest.mark.parametrize(
    "x", [[[1.0, 2.0], [1.0]], "abc", None, X * 1j, np.full((1, 8, 8, 1), np.nan)]
)
def test_what_is_no_array_of_numbers_is_refused_in_our_words(model, call, x):
    with pytest.raises((InvalidValueError, InvalidTypeError), match="argument 'x'"):
        getattr(model, call)(x)


# Codes.


@pytest.mark.parametrize("call", ["decode", "decode_images"])
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.zeros((3, 5)), r"codes of shape \(N, 2\)\. Received: shape \(3, 5\)"),
        (np.zeros(2), r"\(2,\)\. One code alone is z\[None\]"),
        ([0.0, 1.0], r"\(2,\)\. One code alone is z\[None\]"),
        (0.5, r"codes of shape \(N, 2\)\. Received: shape \(\)"),
        ((CODES, CODES), r"\(z_mean, z_log_var\): the code is its first element"),
        ([[0.0], [1.0, 2.0]], "rows of different lengths"),
        ([["a", "b"]], "an array of numbers.*dtype"),
        (None, "an array of numbers.*object"),
        (CODES * 1j, "an array of numbers.*complex128"),
        (np.zeros((0, 2)), "at least one code"),
        (np.array([[0.0, np.nan], [0, 0]]), "finite values.*1 of 2 codes"),
        (np.full((1, 2), 1e300), "finite values.*beyond float32"),
    ],
)
def test_codes_that_cannot_be_decoded_are_refused_in_our_words(model, call, z, message):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=f"argument 'z'.*{message}"):
        getattr(model, call)(z)


def test_lists_of_numbers_are_codes_and_images(model):
    np.testing.assert_array_equal(model.decode([[0, 1]]), model.decode(np.array([[0.0, 1.0]])))
    assert model.decode_images([[0.0, 1.0]]).shape == (1, 8, 8, 1)
    floats = (X[:2] / 255).tolist()
    np.testing.assert_allclose(model.code(floats), model.code(X[:2]), atol=1e-6)
    np.testing.assert_allclose(model.interpolate(*floats), model.interpolate(X[0], X[1]), atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (
            X[:1],
            X[1],
            r"'start': expected one image of shape \(8, 8, 1\).*\(1, 8, 8, 1\).*start\[0\]",
        ),
        (X[0], X[1, ..., 0], r"'end': expected one image.*\(8, 8\)"),
        (X[0], np.full((8, 8, 1), np.nan), "'end': expected finite values"),
        (X[0], 2.0 * X[1], r"'end': expected floats in \[0, 1\]"),
    ],
)
def test_the_ends_of_a_walk_are_one_image_each(model, start, end, message):
    with pytest.raises(InvalidValueError, match=message):
        model.interpolate(start, end)


def test_a_walk_between_bytes_and_floats_is_that_between_bytes(model):
    walk = model.interpolate(X[0], X[1] / 255)
    np.testing.assert_allclose(walk, model.interpolate(X[0], X[1]), atol=1e-6)


# By name.


def test_arguments_are_taken_by_name(model):
    np.testing.assert_array_equal(
        model.log_weights(X, num_samples=3, seed=1), model.log_weights(X, 3, seed=1)
    )
    np.testing.assert_array_equal(model.encode(x=X)[0], model.encode(X)[0])
    np.testing.assert_array_equal(model.decode(z=CODES), model.decode(CODES))
    with pytest.raises(TypeError, match="num_samples"):
        model.log_weights(X)


def test_a_condition_is_taken_by_name_and_missed_in_our_words():
    model, labels = ConditionalVAE(2, (8,), seed=0), np.arange(20) % 4
    model.build((None, 8, 8, 1))
    np.testing.assert_array_equal(model.encode(X, label=labels)[0], model.encode(X, labels)[0])
    for call in (lambda: model.encode(X), lambda: model.decode(CODES)):
        with pytest.raises(InvalidValueError, match=r"'label'.*this model has a condition"):
            call()


# Tensors.


def test_tensors_pass_untouched_in_a_function_and_symbolically(model):
    @tf.function
    def traced(x, z):
        return model.encode(x)[0], model.decode(z)

    code, logits = traced(tf.constant(X), tf.zeros((3, 2)))
    np.testing.assert_allclose(code, model.encode(X)[0], atol=1e-5)
    assert logits.shape == (3, 8, 8, 1)
    assert isinstance(model.encode(keras.Input((8, 8, 1)))[0], keras.KerasTensor)
    assert isinstance(model.decode(keras.Input((2,))), keras.KerasTensor)
    assert all(tf.is_tensor(part) for part in model.encode(tf.constant(X)))
