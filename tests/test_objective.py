"""What a step descends: an overridden objective or regularizer, terms of any name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from keras import layers, ops
from training_helpers import Recorder, small_vae

import vae_tf
from vae_tf import VAE

pytestmark = pytest.mark.xla

RATE = 2**-7


def one_step(**kwargs):
    """A model after one step of plain gradient descent on 20 images, and the history."""
    model = small_vae(optimizer=keras.optimizers.SGD(RATE), **{"jit_compile": False} | kwargs)
    model.build((None, 8, 8))
    model.begin(blobs(20).astype("float32") / 255)
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}
    history = model.fit(blobs(20), batch_size=20, shuffle=False, verbose=0).history
    return model, before, history


class Sharper(VAE):
    """Descends another scalar of the same terms."""

    def objective(self, means):
        return 3 * means["reconstruction_loss"] + ops.square(means["kl_loss"])


def test_an_overridden_objective_is_what_is_descended():
    model, before, _ = one_step(model_class=Sharper)
    twin = small_vae(jit_compile=False)
    twin.build((None, 8, 8))
    x = blobs(20).astype("float32") / 255
    twin.begin(x)
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
