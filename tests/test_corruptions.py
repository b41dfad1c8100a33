"""Corruptions: their laws against binomial and normal ones, seeds, and what they refuse."""

import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras.src.testing import TestCase

from vae_tf import AdditiveGaussian, Masking, SaltAndPepper, corruptions
from vae_tf.layers import PerImage, drawing

EACH = [Masking(0.3, seed=1), AdditiveGaussian(0.3, seed=1), SaltAndPepper(0.3, seed=1)]
X = np.full((500, 6, 4), 0.6, "float32")


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # by Keras's test
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning")
@pytest.mark.parametrize("layer", EACH, ids=lambda layer: type(layer).__name__)
def test_keras_tests_of_a_layer(layer):
    """Their calls, configuration, a training step, and mixed precision."""
    name = "sigma" if isinstance(layer, AdditiveGaussian) else "share"
    TestCase().run_layer_test(
        type(layer),
        {name: 0.3, "seed": 1},
        input_data=tf.random.uniform((2, 5)),
        expected_output_shape=(2, 5),
        expected_num_seed_generators=1,
        expected_num_losses=0,
    )
    TestCase().run_class_serialization_test(layer)


def test_masking_is_binomial_within_an_image_and_leaves_the_rest():
    x = np.random.default_rng(0).uniform(0.1, 1, (4000, 30)).astype("float32")
    out = Masking(0.3, seed=0)(x).numpy()
    np.testing.assert_array_equal(out[out != 0], x[out != 0])
    zeros = (out == 0).sum(1)
    observed = np.bincount(zeros, minlength=31)[3:16]
    expected = 4000 * scipy.stats.binom.pmf(np.arange(3, 16), 30, 0.3)
    expected *= observed.sum() / expected.sum()
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_additive_gaussian_is_normal_and_is_not_clipped():
    x = np.linspace(0, 1, 20000, dtype="float32").reshape(200, 100)
    noise = (AdditiveGaussian(0.5, seed=0)(x).numpy() - x).ravel()
    assert scipy.stats.kstest(noise / 0.5, "norm").pvalue > 1e-3
    assert abs(noise.std() / 0.5 - 1) < 4 / math.sqrt(2 * x.size)
    assert abs(np.corrcoef(noise, x.ravel())[0, 1]) < 4 / math.sqrt(x.size)


def test_salt_and_pepper_has_even_chances_of_black_and_white():
    out = SaltAndPepper(0.4, low=-1.0, high=2.0, seed=0)(X).numpy()
    counts = [(out == value).sum() for value in (-1.0, 2.0, np.float32(0.6))]
    assert sum(counts) == X.size
    assert scipy.stats.chisquare(counts, X.size * np.array([0.2, 0.2, 0.6])).pvalue > 1e-3


@pytest.mark.parametrize("layer", EACH, ids=lambda layer: type(layer).__name__)
def test_the_seed_fixes_the_noise_which_is_new_at_each_call(layer):
    same, other = (type(layer).from_config({**layer.get_config(), "seed": seed}) for seed in (1, 2))
    again = type(layer).from_config(layer.get_config())
    first, second = again(X).numpy(), again(X).numpy()
    np.testing.assert_array_equal(first, same(X))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other(X))


@pytest.mark.parametrize("layer", EACH, ids=lambda layer: type(layer).__name__)
def test_the_noise_is_served_from_outside(layer):
    """Image 7 has its own noise, in any batch: what evaluation and the training loop rest upon."""
    with drawing(PerImage(0, np.arange(10))):
        together = layer(X[:10]).numpy()
    with drawing(PerImage(0, np.array([7]))):
        np.testing.assert_array_equal(layer(X[:1]).numpy()[0], together[7])
    assert not np.array_equal(together[6], together[7])


@pytest.mark.parametrize("kind", [Masking, SaltAndPepper])
def test_none_and_all(kind):
    np.testing.assert_array_equal(kind(0.0, seed=0)(X), X)
    assert not np.any(kind(1, seed=0)(X).numpy() == np.float32(0.6))
    np.testing.assert_array_equal(AdditiveGaussian(0, seed=0)(X), X)


def test_bytes_come_to_floats_as_images_do():
    np.testing.assert_allclose(Masking(0.0)(np.uint8([[0, 51, 255]])), [[0, 0.2, 1]], rtol=1e-6)


def test_by_name_by_layer_and_from_the_saved_form():
    layer = corruptions.get_corruption("salt_and_pepper", 0.2, seed=3)
    assert isinstance(layer, SaltAndPepper)
    assert (layer.share, layer.seed) == (0.2, 3)
    assert corruptions.get_corruption("gaussian", 0.2).sigma == 0.2
    assert corruptions.get_corruption(layer) is layer
    saved = keras.saving.serialize_keras_object(layer)
    np.testing.assert_array_equal(corruptions.get_corruption(saved)(X), layer(X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Masking(1.1), "'share': expected a number from 0 to 1. Received: share=1.1"),
        (lambda: Masking(-0.1), "share=-0.1"),
        (lambda: SaltAndPepper(math.nan), "share=nan"),
        (lambda: SaltAndPepper("half"), "share='half'"),
        (lambda: AdditiveGaussian(-1), "'sigma': expected a number of at least 0"),
        (lambda: corruptions.get_corruption("blur", 1), "'masking', 'gaussian', 'salt_and_pepper'"),
        (lambda: corruptions.get_corruption("masking"), "level=None"),
        (lambda: corruptions.get_corruption(Masking(0.5), 0.3), "which has its own"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message.replace("(", r"\(")):
        call()
