"""Layers that act in training as they do not elsewhere, their own losses, weights that none reaches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from keras import layers

import vae_tf

pytestmark = pytest.mark.xla

X = blobs(60, (8, 8)).astype("float32") / 255


def with_encoder(hidden, rate=2**-7, run_eagerly=True):
    """A VAE whose encoder has a dense layer and then `hidden` in it."""
    keras.utils.set_random_seed(3)
    x = keras.Input((8, 8))
    code = hidden(layers.Dense(16, "relu")(layers.Flatten()(x)))
    encoder = keras.Model(x, [layers.Dense(2)(code), layers.Dense(2)(code)])
    model = vae_tf.VAE(2, (8,), encoder=encoder, seed=0)
    model.compile(keras.optimizers.SGD(rate), run_eagerly=run_eagerly)
    return model


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.slow
def test_batch_normalisation_follows_the_batches_and_is_used_as_it_stands_elsewhere(run_eagerly):
    """Its moving mean after three steps at rate 0, by hand; and `predict` of one image alone."""
    norm = layers.BatchNormalization(momentum=0.5)
    model = with_encoder(norm, 0.0, run_eagerly)
    model.fit(X, batch_size=20, shuffle=False, verbose=0)
    dense = model.encoder.layers[2]
    before = np.maximum(X.reshape(60, 64) @ dense.kernel.numpy() + dense.bias.numpy(), 0)
    mean, variance = np.zeros(16), np.ones(16)
    for rows in np.split(before, 3):
        mean, variance = (mean + rows.mean(0)) / 2, (variance + rows.var(0)) / 2
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4, atol=1e-6)
    model.evaluate(X, verbose=0)
    one = [model.predict(X[i : i + 1], verbose=0)[0] for i in range(3)]
    np.testing.assert_allclose(one, model.predict(X[:3], verbose=0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4, atol=1e-6)


def test_dropout_is_for_training_alone():
    """The gradient that training takes is that of a pass with dropped units; evaluation drops none."""
    model, plain = with_encoder(layers.Dropout(0.9, seed=1)), with_encoder(layers.Dropout(0.0))
    np.testing.assert_allclose(
        model.evaluate(X, verbose=0), plain.evaluate(X, verbose=0), rtol=1e-6
    )
    histories = [m.fit(X, batch_size=60, verbose=0).history for m in (model, plain)]
    assert abs(histories[0]["kl_loss"][0] - histories[1]["kl_loss"][0]) > 0.01
    losses = [model.fit(X, batch_size=60, verbose=0).history["kl_loss"][0] for _ in range(3)]
    assert len(set(losses)) == 3  # other units each time
    np.testing.assert_array_equal(model.reconstruct(X), model.reconstruct(X))


@pytest.mark.parametrize("run_eagerly", [pytest.param(False, marks=pytest.mark.slow), True])
def test_weight_decay_is_in_the_objective_under_a_name_of_its_own(run_eagerly):
    """The shown penalty is 0.1·Σ w²; a step of plain descent moves w by it, and the KL is as without."""
    rate, runs = 2**-7, {}
    for strength in (0.1, 0.0):
        decay = keras.regularizers.L2(strength) if strength else None
        keras.utils.set_random_seed(3)  # the layer, too, begins with the same weights
        model = with_encoder(layers.Dense(16, kernel_regularizer=decay), rate, run_eagerly)
        kernel = model.encoder.layers[3].kernel.numpy()
        history = model.fit(X, batch_size=60, verbose=0, validation_data=X).history
        runs[strength] = history, model.encoder.layers[3].kernel.numpy()
    (decayed, to), (plain, plain_to) = runs[0.1], runs[0.0]
    penalty = 0.1 * np.sum(np.square(kernel, dtype="float64"))
    assert decayed["regularization_loss"] == [pytest.approx(penalty, rel=1e-5)]
    after = 0.1 * np.sum(np.square(to, dtype="float64"))
    assert decayed["val_regularization_loss"] == [pytest.approx(after, rel=1e-5)]
    assert "regularization_loss" not in plain
    for name in ("loss", "kl_loss", "reconstruction_loss"):
        assert decayed[name] == pytest.approx(plain[name], rel=1e-6)
    np.testing.assert_allclose(to, plain_to - rate * 2 * 0.1 * kernel, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_weight_that_the_objective_does_not_reach_is_named_and_left(run_eagerly):
    class Unused(vae_tf.VAE):
        def build(self, input_shape):
            self.spare = layers.Dense(3, name="spare")
            self.spare.build((None, 2))
            super().build(input_shape)

    model = Unused(2, (8,), seed=0)
    model.compile(run_eagerly=run_eagerly, jit_compile=False)
    with pytest.warns(
        UserWarning, match=r"does not depend on .*spare/bias, .*spare/kernel:"
    ) as seen:
        history = model.fit(X, batch_size=20, epochs=2, verbose=0).history
    assert len(seen) == 1 + sum("grey values" in str(warning.message) for warning in seen)
    twin = vae_tf.VAE(2, (8,), seed=0)
    twin.compile(run_eagerly=True)
    expected = twin.fit(X, batch_size=20, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_array_equal(model.spare.bias, np.zeros(3))


def test_an_encoder_that_replaces_another_leaves_its_weights():
    """`super().build()`, and then another encoder: those of the first are not reached."""

    class Replaced(vae_tf.VAE):
        def build(self, input_shape):
            super().build(input_shape)
            self.first, self.encoder = self.encoder, vae_tf.dense_encoder((8, 8), 2, (4,), seed=1)

    model = Replaced(2, (8,), seed=0)
    model.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match="does not depend on .*hidden_0"):
        model.fit(X, batch_size=20, verbose=0)
    fresh = vae_tf.dense_encoder((8, 8), 2, (4,), seed=1)
    assert np.any(tf.not_equal(fresh.weights[0], model.encoder.weights[0]))
