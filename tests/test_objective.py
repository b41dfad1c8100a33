"""What a step descends: terms, an overridden objective, layers' own losses, layers that know of training."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from keras import layers, ops
from training_helpers import Recorder, small_vae

import vae_tf
from vae_tf import VAE

RATE, DECAY = 2**-7, 0.25


def networks(decay=None, dropout=0.0):
    """An encoder of a user's own for images of 8×8, and its decoder."""
    keras.utils.set_random_seed(0)
    x, z = keras.Input((8, 8)), keras.Input((2,))
    kernel_decay = None if decay is None else keras.regularizers.L2(decay)
    dense = layers.Dense(16, kernel_regularizer=kernel_decay, name="first")
    hidden = layers.BatchNormalization(name="norm")(dense(layers.Flatten()(x)))
    hidden = layers.Dropout(dropout, seed=1)(layers.Activation("tanh")(hidden))
    heads = [layers.Dense(2)(hidden), layers.Dense(2)(hidden)]
    image = layers.Reshape((8, 8))(layers.Dense(64)(z))
    return {"encoder": keras.Model(x, heads), "decoder": keras.Model(z, image)}


def one_step(**kwargs):
    """A model after one step of plain gradient descent on 20 images, and the history."""
    model = small_vae(optimizer=keras.optimizers.SGD(RATE), **{"jit_compile": False} | kwargs)
    model.build((None, 8, 8))
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}
    history = model.fit(blobs(20), batch_size=20, shuffle=False, verbose=0).history
    return model, before, history


@pytest.mark.parametrize("kwargs", [{}, {"run_eagerly": True}, {"jit_compile": True}])
def test_batch_normalization_in_an_encoder_is_told_that_it_trains(kwargs):
    model, before, _ = one_step(**networks(), **kwargs)
    kernel, bias = (before[model.encoder.get_layer("first").weights[i].path] for i in (0, 1))
    hidden = (blobs(20).reshape(20, -1) / 255) @ kernel + bias
    norm = model.encoder.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, 0.01 * hidden.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(norm.moving_variance, 0.99 + 0.01 * hidden.var(0), rtol=1e-4)
    moved = norm.moving_mean.numpy()
    model.evaluate(blobs(20), verbose=0)
    model.predict(blobs(20), verbose=0)
    np.testing.assert_array_equal(norm.moving_mean, moved)


def test_dropout_in_an_encoder_drops_in_training_alone():
    """At half of the units the KL of training is another in each epoch, and that of `evaluate` is not."""
    model = small_vae(
        optimizer=keras.optimizers.SGD(0.0), jit_compile=False, **networks(dropout=0.5)
    )
    x = blobs(20)
    history = model.fit(x, batch_size=20, epochs=3, verbose=0, validation_data=x).history
    assert len(set(history["kl_loss"])) == 3
    assert (
        len({round(kl, 6) for kl in history["val_kl_loss"][1:]}) <= 2
    )  # the averages of the norm move


@pytest.mark.parametrize("kwargs", [{}, {"run_eagerly": True}])
def test_weight_decay_is_in_the_objective_and_in_no_term(kwargs):
    plain, before, without = one_step(**networks(), **kwargs)
    decayed, _, history = one_step(**networks(decay=DECAY), **kwargs)
    kernel = before[plain.encoder.get_layer("first").kernel.path]
    for name in ("loss", "reconstruction_loss", "kl_loss"):
        np.testing.assert_allclose(history[name], without[name], rtol=1e-6)
    penalty = DECAY * np.sum(np.square(kernel, dtype="float64"))
    assert history["regularization_loss"] == [pytest.approx(penalty, rel=1e-5)]
    assert "regularization_loss" not in without
    found, expected = (m.encoder.get_layer("first").kernel.numpy() for m in (decayed, plain))
    np.testing.assert_allclose(found, expected - RATE * 2 * DECAY * kernel, atol=1e-6)
    shown = decayed.evaluate(blobs(20), verbose=0, return_dict=True)
    kernel = decayed.encoder.get_layer("first").kernel.numpy()
    assert shown["regularization_loss"] == pytest.approx(DECAY * np.sum(kernel**2), rel=1e-5)
    assert shown["loss"] == pytest.approx(shown["reconstruction_loss"] + shown["kl_loss"], rel=1e-6)


class Sharper(VAE):
    """Descends another scalar of the same terms."""

    def objective(self, means):
        return 3 * means["reconstruction_loss"] + ops.square(means["kl_loss"])


def test_an_overridden_objective_is_what_is_descended():
    model, before, _ = one_step(model_class=Sharper)
    twin = small_vae(jit_compile=False)
    twin.build((None, 8, 8))
    x = blobs(20).astype("float32") / 255
    noise = twin.sampling.normal((20, 2))
    with tf.GradientTape() as tape:
        z_mean, z_log_var = twin.encoder(x)
        logits = twin.decoder(z_mean + tf.exp(0.5 * z_log_var) * noise)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
        kl = 0.5 * tf.reduce_sum(tf.exp(z_log_var) + z_mean**2 - 1 - z_log_var) / 20
        objective = 3 * tf.reduce_sum(entropy) / 20 + kl**2
    gradients = tape.gradient(objective, twin.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        found = (before[weight.path] - weight.numpy()) / RATE
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-4)


class Doubled(VAE):
    """Twice the KL."""

    def regularizer(self, z_mean, z_log_var):
        return 2 * vae_tf.gaussian_kl(z_mean, z_log_var, axis=None)

    def prior(self):
        return vae_tf.distributions.Normal(0.0, 0.0)


def test_an_overridden_regularizer_is_heard_by_fit_evaluate_and_add_loss():
    (doubled, _, one), (plain, _, other) = one_step(model_class=Doubled), one_step()
    assert one["kl_loss"][0] == pytest.approx(2 * other["kl_loss"][0], rel=1e-5)
    assert one["loss"][0] == pytest.approx(other["loss"][0] + other["kl_loss"][0], rel=1e-5)
    doubled.set_weights(plain.get_weights())
    found, expected = (m.evaluate(blobs(), verbose=0, return_dict=True) for m in (doubled, plain))
    assert found["kl_loss"] == pytest.approx(2 * expected["kl_loss"], rel=1e-5)
    for model in (doubled, plain):
        model(blobs())
    assert float(doubled.losses[0]) == pytest.approx(2 * float(plain.losses[0]), rel=1e-5)


# Weights that the objective does not reach.


class Unused(VAE):
    """A layer of which nothing depends."""

    def build(self, input_shape):
        self.idle = layers.Dense(3, name="idle")
        self.idle.build((None, 2))
        super().build(input_shape)


@pytest.mark.parametrize("kwargs", [{}, {"run_eagerly": True}])
def test_a_weight_that_the_objective_does_not_reach_is_named_and_left(kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, before, _ = one_step(model_class=Unused, **kwargs)
        model.fit(blobs(20), batch_size=20, verbose=0)
    words = [str(warning.message) for warning in caught if "depend" in str(warning.message)]
    assert len(words) == 1
    assert "idle/kernel" in words[0]
    assert "idle/bias" in words[0]
    assert "logits" not in words[0]
    assert model.steps_made == 2
    for weight in model.trainable_weights:
        assert (weight.numpy() == before[weight.path]).all() == ("idle/" in weight.path)


def test_an_overridden_call_which_training_would_not_use_is_named():
    with pytest.warns(UserWarning, match="Silent overrides `call`, which training does not use"):

        class Silent(VAE):
            def call(self, inputs):
                return super().call(inputs)

    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Heard(VAE):
            def call(self, inputs):
                return super().call(inputs)

            def terms(self, x, training=False):
                return super().terms(x, training=training)


# Terms of other names.


class Squares(vae_tf.Model):
    """A code of two numbers; a loss, and two terms beside it, one of them of each pixel."""

    latent_dim = 2

    def build(self, input_shape):
        self.encoder, self.decoder = layers.Dense(2), layers.Dense(input_shape[1])
        self.encoder.build(input_shape)
        self.decoder.build((None, 2))
        super().build(input_shape)

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def terms(self, x, training=False):
        z = self.encode(x)
        squares = ops.square(x - self.decode(z))
        return {
            "loss": ops.sum(squares, axis=-1),
            "code_size": ops.log(ops.sum(ops.square(z), axis=-1)),
            "squares": squares,
        }


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_terms_of_any_name_are_shown_recorded_and_guarded():
    x = np.random.default_rng(0).uniform(0, 1, (20, 5)).astype("float32")
    model, recorder, steps = Squares("gaussian", seed=0), Recorder(), vae_tf.StepHistory()
    model.compile(keras.optimizers.SGD(1e-2), jit_compile=False)
    with pytest.warns(UserWarning, match="log_sigma"):  # which this loss does without
        history = model.fit(
            x, batch_size=10, epochs=2, verbose=0, validation_data=x, callbacks=[recorder, steps]
        ).history
    shown = {"loss", "code_size"}
    assert set(history) == {*shown, *(f"val_{name}" for name in shown), "gradient_norm"}
    assert recorder.columns()["squares"].shape == (4, 5)
    np.testing.assert_allclose(
        recorder.columns()["squares"].sum(axis=1), steps.columns()["loss"], rtol=1e-5
    )
    assert "squares" not in steps.columns()
    model.encoder.kernel.assign(np.zeros((5, 2)))
    model.encoder.bias.assign(np.zeros(2))
    with pytest.raises(FloatingPointError, match=r"At step 5, code_size is -inf"):
        model.fit(x, batch_size=10, verbose=0)
