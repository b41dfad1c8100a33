"""What a subclass of VAE overrides counts everywhere, or is refused; never in one place alone."""

import keras
import numpy as np
import pytest
from helpers import blobs
from keras import ops

import vae_tf
from vae_tf import evaluation, export
from vae_tf.distributions import Normal
from vae_tf.errors import InvalidValueError

pytestmark = pytest.mark.xla

X = blobs(20, (8, 8, 1))
SHIFT = 3.0


class OtherPenalty(vae_tf.VAE):
    """It overrides `regularizer`, and does not say what its prior is."""

    def regularizer(self, z_mean, z_log_var):
        return ops.square(z_mean)


class SaidPrior(OtherPenalty):
    def prior(self):
        return Normal(ops.zeros((1, 2)), ops.zeros((1, 2)))


class ShiftedPrior(vae_tf.VAE):
    """p(z) = N(m, e^log_var) with m = 3 and log_var = −2, both of them weights."""

    def build(self, input_shape):
        constant = keras.initializers.Constant
        self.m = self.add_weight(shape=(1, 2), initializer=constant(SHIFT), name="m")
        self.log_var = self.add_weight(shape=(1, 2), initializer=constant(-2.0), name="log_var")
        super().build(input_shape)

    def prior(self):
        return Normal(ops.convert_to_tensor(self.m), ops.convert_to_tensor(self.log_var))


def make(kind):
    model = kind(2, (8,), seed=0)
    model.compile(run_eagerly=True)
    model.build((None, 8, 8, 1))
    return model


def test_a_regularizer_without_its_prior_has_no_draws_and_no_likelihood(tmp_path):
    """It is trained and bounded; what needs p(z) says which method is missing."""
    model = make(OtherPenalty)
    history = model.fit(X, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    z_mean = model.encode(X)[0]
    found = evaluation.elbo(model, X)
    assert found["kl_loss"].mean == pytest.approx(np.square(z_mean).sum(1).mean(), rel=1e-5)
    assert found["kl_loss"].mean == pytest.approx(model.evaluate(X, verbose=0)[2], rel=1e-5)
    for call in (
        lambda: model.generate(2, seed=0),
        lambda: model.log_weights(X > 100, 3),
        lambda: evaluation.log_likelihood(model, X > 100, 3),
        lambda: export.export_decoder(model, tmp_path / "decoder"),
    ):
        with pytest.raises(
            InvalidValueError, match=r"overrides `regularizer`.*Define `prior\(self\)`"
        ):
            call()
    assert list(tmp_path.iterdir()) == []
    said = make(SaidPrior)
    np.testing.assert_array_equal(said.generate(2, seed=0), make(vae_tf.VAE).generate(2, seed=0))


def test_a_learned_prior_is_drawn_from_here_and_in_the_export(tmp_path):
    """Its codes are m + σ·ε with the ε of N(0, I); m and σ are trained."""
    model, plain = make(ShiftedPrior), make(vae_tf.VAE)
    seeds = vae_tf.random.row_seeds(5, 4)
    epsilon = np.float32(vae_tf.random.seeded_normal(seeds, 2))
    drawn = model.generate(4, seed=5)
    z = np.float32(SHIFT + np.exp(-1.0) * epsilon)
    np.testing.assert_allclose(drawn, plain.decode_images(z), rtol=1e-5)
    path = export.export_decoder(model, tmp_path / "decoder")
    exported = export.generate_from_saved_model(path, 4, seed=5)
    np.testing.assert_allclose(exported, drawn, rtol=1e-6)
    model.fit(X, epochs=2, verbose=0)
    assert (model.m.numpy() != SHIFT).all()
    assert (model.log_var.numpy() != -2.0).all()


class PriorOfALabel(vae_tf.VAE):
    """p(z|c) = N(c, I); the networks do not see the label."""

    condition = vae_tf.Condition("label", num_classes=4)

    def prior(self, label):
        mean = ops.expand_dims(ops.cast(label, "float32"), -1) + ops.zeros((1, 2))
        return Normal(mean, ops.zeros_like(mean))


def test_a_prior_that_has_the_condition_is_given_it(tmp_path):
    model, plain, labels = make(PriorOfALabel), make(vae_tf.VAE), np.arange(20) % 4
    epsilon = np.float32(vae_tf.random.seeded_normal(vae_tf.random.row_seeds(5, 20), 2))
    drawn = model.generate(20, seed=5, condition=labels)
    expected = plain.decode_images(epsilon + np.float32(labels)[:, None])
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)
    path = export.export_decoder(model, tmp_path / "decoder")
    exported = export.generate_from_saved_model(path, 20, seed=5, label=labels)
    np.testing.assert_allclose(exported, drawn, rtol=1e-6)
    mean, log_var = (np.float64(part) for part in plain.encode(X))
    kl = 0.5 * (np.exp(log_var) + (mean - labels[:, None]) ** 2 - 1 - log_var).sum(1)
    found = evaluation.elbo(model, X, condition=labels)
    assert found["kl_loss"].mean == pytest.approx(kl.mean(), rel=1e-4)
    assert model.evaluate(X, labels, verbose=0)[2] == pytest.approx(kl.mean(), rel=1e-4)
    # log p(z|c) − log p(z) = c·z − ½c², and z is the same under one seed
    weights, without = (
        model.log_weights(X, 5000, labels, seed=1),
        plain.log_weights(X, 5000, seed=1),
    )
    expected = (labels * mean.sum(1) - labels**2).mean()
    assert (weights - without).mean() == pytest.approx(expected, abs=0.02)


def test_an_overridden_call_alone_is_warned_of_where_the_class_is_made():
    with pytest.warns(
        UserWarning, match="OwnCall overrides `call`, which training does not use"
    ) as seen:

        class OwnCall(vae_tf.VAE):
            def call(self, inputs):
                return super().call(inputs)

    assert seen[0].filename == __file__

    class OwnCallAndTerms(vae_tf.VAE):  # warnings are errors here
        def call(self, inputs):
            return super().call(inputs)

        def terms(self, x, training=False):
            return super().terms(x, training=training)


def test_a_metric_of_an_overridden_train_step_is_in_the_history():
    """A Keras metric that the subclass owns; logs alone are in test_engine, devices in test_devices."""

    class Watched(vae_tf.VAE):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.brightness = keras.metrics.Mean("brightness")

        @property
        def metrics(self):
            return [*super().metrics, self.brightness]

        def train_step(self, batch):
            logs = super().train_step(batch)
            self.brightness.update_state(self.to_floats(batch[0]))
            return logs | {"brightness": self.brightness.result()}

    for kwargs in ({}, {"run_eagerly": True}):
        model = Watched(2, (8,), seed=0)
        model.compile(**kwargs)
        history = model.fit(X, batch_size=5, epochs=2, verbose=0).history
        np.testing.assert_allclose(history["brightness"], [X.mean() / 255] * 2, rtol=1e-5)
