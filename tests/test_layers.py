"""Layers with randomness in them: their laws, their gradients, and Keras's own tests."""

import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras.src.testing import TestCase

from vae_tf.layers import Binarize, Sampling


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # by Keras's test
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning")
@pytest.mark.parametrize(("kind", "shape"), [(Binarize, (2, 5)), (Sampling, ((2, 5), (2, 5)))])
def test_keras_tests_of_a_layer(kind, shape):
    """Their calls, configuration, a training step, and mixed precision."""
    one = kind is Binarize
    TestCase().run_layer_test(
        kind,
        {"seed": 1},
        input_data=tf.random.uniform(shape) if one else tuple(map(tf.zeros, shape)),
        expected_output_shape=(2, 5),
        expected_num_seed_generators=1,
        expected_num_losses=0,
        run_training_check=one,  # Keras's test gives a model of two inputs only one
        run_mixed_precision_check=one,  # and does not do this for a tuple
    )
    TestCase().run_class_serialization_test(kind(seed=1))


def test_sampling_has_the_moments_of_its_gaussian():
    z_mean, z_log_var = tf.constant([[1.0, -2.0]]), tf.constant([[math.log(0.25), math.log(9.0)]])
    num = 40000
    z = Sampling(seed=0)((tf.repeat(z_mean, num, 0), tf.repeat(z_log_var, num, 0))).numpy()
    sigma = np.array([0.5, 3.0])
    np.testing.assert_allclose(z.mean(0), [1.0, -2.0], atol=4 * 3 / math.sqrt(num))
    np.testing.assert_allclose(z.std(0), sigma, rtol=4 / math.sqrt(2 * num))
    standard = (z - [1.0, -2.0]) / sigma
    assert scipy.stats.kstest(standard[:, 0], "norm").pvalue > 1e-4
    assert abs(np.corrcoef(standard.T)[0, 1]) < 4 / math.sqrt(num)


def test_sampling_passes_the_gradient_to_both_inputs():
    """∂z/∂μ = 1 and ∂z/∂(log σ²) = ½(z − μ)."""
    z_mean, z_log_var = tf.constant([[0.3, -1.0]]), tf.constant([[0.2, -0.5]])
    with tf.GradientTape() as tape:
        tape.watch([z_mean, z_log_var])
        z = Sampling(seed=0)((z_mean, z_log_var))
    to_mean, to_log_var = tape.gradient(z, [z_mean, z_log_var])
    np.testing.assert_allclose(to_mean, np.ones((1, 2)))
    np.testing.assert_allclose(to_log_var, 0.5 * (z - z_mean), rtol=1e-6)
    assert np.all(np.asarray(to_log_var) != 0)


def test_sampling_draws_anew_each_time_and_the_seed_fixes_the_sequence():
    inputs = (tf.zeros((3, 4)), tf.zeros((3, 4)))
    first, second = Sampling(seed=1), Sampling(seed=1)
    draws = [first(inputs).numpy() for _ in range(2)]
    assert not np.allclose(*draws)
    np.testing.assert_array_equal(draws, [second(inputs).numpy() for _ in range(2)])
    assert not np.allclose(draws[0], Sampling(seed=2)(inputs))
    restored = Sampling.from_config(first.get_config())
    np.testing.assert_array_equal(draws[0], restored(inputs))


def test_binarize_draws_anew_with_the_grey_value_as_probability():
    grey = np.tile(np.float32([0, 1, 0.25, 0.7]), (20000, 1))
    layer = Binarize(seed=0)
    first, second = layer(grey).numpy(), layer(grey).numpy()
    np.testing.assert_array_equal(np.unique(first), [0.0, 1.0])
    np.testing.assert_array_equal(first[:, :2], grey[:, :2])
    np.testing.assert_allclose(first.mean(0), grey[0], atol=4 * 0.5 / math.sqrt(20000))
    for column in (2, 3):  # draws that know nothing of one another
        assert abs(np.corrcoef(first[:, column], second[:, column])[0, 1]) < 4 / math.sqrt(20000)
    np.testing.assert_array_equal(Binarize(seed=0)(grey), first)
