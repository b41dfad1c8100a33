"""Callbacks of `fit`: schedules of the objective, what the monitor counts, the guard."""

import csv
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from training_helpers import each, flat, small_vae

import vae_tf
from vae_tf import FreeBits, KLWarmup, LatentMonitor, StepHistory
from vae_tf.errors import CollapseWarning

RATE = 2**-7


def make(optimizer=None, steps_per_execution=1, **kwargs):
    """A model for images of 8×8; by default its callbacks are called at every step."""
    model = small_vae(
        optimizer=optimizer, latent_dim=3, steps_per_execution=steps_per_execution, **kwargs
    )
    model.build((None, 8, 8))
    return model


def trainable(model):
    return flat(model.trainable_weights)


# The objective, step by step.


@pytest.fixture(scope="module")
def descent():
    """Six steps of plain gradient descent: the free bits, the weights at each step, the record."""
    model = make(keras.optimizers.SGD(RATE))
    kl = np.mean(vae_tf.gaussian_kl(*model.encode(blobs(10)), axis=None), axis=0)
    (hook, weights), history = each(trainable), StepHistory()
    nats = float(np.median(kl) + kl.max()) / 2
    hooks = [hook, history, KLWarmup(4, beta=0.5), FreeBits(nats)]
    model.fit(blobs(10), epochs=6, batch_size=10, shuffle=False, verbose=0, callbacks=hooks)
    return nats, weights, history.columns()


def test_the_gradient_is_that_of_the_weighed_and_floored_kl(descent):
    nats, weights, _ = descent
    twin, images = make(), blobs(10).astype("float32") / 255
    twin.begin(images)
    noise = twin.sampling((tf.zeros((10, 3)), tf.zeros((10, 3))))
    with tf.GradientTape() as tape:
        z_mean, z_log_var = twin.encoder(images)
        logits = twin.decoder(z_mean + tf.exp(0.5 * z_log_var) * noise)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
        kl = tf.reduce_mean(0.5 * (tf.exp(z_log_var) + z_mean**2 - 1 - z_log_var), 0)
        floored = tf.reduce_sum(tf.maximum(kl, nats))
        loss = tf.reduce_sum(entropy) / 10 + 0.125 * floored
    assert 0 < np.sum(kl > nats) < 3  # the floor holds some dimensions and not others
    expected = flat(tape.gradient(loss, twin.trainable_weights))
    np.testing.assert_allclose((weights[0] - weights[1]) / RATE, expected, atol=2e-5)


def test_beta_rises_linearly_to_where_it_is_to_end(descent):
    np.testing.assert_allclose(descent[2]["beta"], np.array([1, 2, 3, 4, 4, 4]) / 8, rtol=1e-6)


def test_the_recorded_norm_is_that_of_the_step(descent):
    _, weights, history = descent
    norms = np.linalg.norm(np.diff(weights, axis=0), axis=1) / RATE
    np.testing.assert_allclose(history["gradient_norm"], norms, rtol=1e-4)


def test_clipping_bounds_the_step_and_not_the_record(descent):
    nats, _, unclipped = descent
    (hook, weights), history = each(trainable), StepHistory()
    model = make(keras.optimizers.SGD(1.0, global_clipnorm=0.1))
    hooks = [hook, history, KLWarmup(4, beta=0.5), FreeBits(nats)]
    model.fit(blobs(10), epochs=3, batch_size=10, shuffle=False, verbose=0, callbacks=hooks)
    lengths = np.linalg.norm(np.diff(weights, axis=0), axis=1)
    np.testing.assert_allclose(lengths, 0.1, rtol=1e-4)
    norms = history.columns()["gradient_norm"]
    assert norms[0] == pytest.approx(unclipped["gradient_norm"][0], rel=1e-5)
    assert norms.min() > 1


def test_free_bits_of_zero_change_nothing():
    models = [make(keras.optimizers.SGD(RATE), run_eagerly=True) for _ in range(2)]
    for model, hooks in zip(models, ([], [FreeBits(0)]), strict=True):
        before = trainable(model)
        model.fit(blobs(20), batch_size=10, shuffle=False, verbose=0, callbacks=hooks)
        assert (trainable(model) != before).any()
    np.testing.assert_array_equal(trainable(models[0]), trainable(models[1]))


@pytest.mark.slow
def test_free_bits_keep_every_dimension_from_losing_its_kl():
    """Under a weight of 5 on the KL, which empties the code without them."""
    x, found = np.tile(blobs(), (50, 1, 1)), []
    for nats in (0, 0.7):
        model = make(keras.optimizers.Adam(1e-2), steps_per_execution="auto")
        monitor, hooks = LatentMonitor(), [KLWarmup(0, beta=5), FreeBits(nats)]
        model.fit(x, batch_size=32, epochs=4, verbose=0, callbacks=[monitor, *hooks])
        found.append(monitor.rows[-1]["kl_per_dimension"])
    assert max(found[0]) < 0.02
    np.testing.assert_allclose(found[1], 0.7, atol=0.05)


def test_kl_warm_up_weighs_the_kl_step_by_step():
    model, history = small_vae(), vae_tf.StepHistory()
    hooks = [vae_tf.KLWarmup(8), history]
    model.fit(blobs(60), batch_size=10, epochs=2, verbose=0, callbacks=hooks)
    np.testing.assert_allclose(history.columns()["beta"], np.minimum(1, np.arange(1, 13) / 8))
    assert float(model.beta) == 1
    rows = history.columns()
    np.testing.assert_allclose(
        rows["loss"], rows["reconstruction_loss"] + rows["kl_loss"], rtol=1e-6
    )


@pytest.mark.slow
def test_without_weight_on_the_kl_it_grows():
    kls = []
    for warmup in (0, 10**9):
        model = small_vae()
        hooks = [vae_tf.KLWarmup(warmup)]
        kls.append(
            model.fit(blobs(200), epochs=40, verbose=0, callbacks=hooks).history["kl_loss"][-1]
        )
    assert kls[1] > 2 * kls[0]


# What `fit` watches.


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Four epochs at rate 0 of a model with one dead dimension of three; 3 steps an epoch."""
    path = tmp_path_factory.mktemp("watched") / "log.csv"
    model = make(keras.optimizers.SGD(0.0))
    monitor, steps = LatentMonitor(patience=4), StepHistory()
    layer = model.encoder.get_layer("z_mean_and_log_var")
    layer.kernel.assign(layer.kernel.numpy() * [2, 0, 2, 1, 0, 1])
    layer.bias.assign([0, 1, 0, 0, 0, 0])  # dead, and not at 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        hook, counted = each(lambda _: len(caught), "on_epoch_end")
        hooks = [KLWarmup(2), monitor, steps, hook, keras.callbacks.CSVLogger(path)]
        x = blobs(60) > 100
        history = model.fit(x, batch_size=25, epochs=4, verbose=0, callbacks=hooks).history
    z_mean, z_log_var = (part.astype("float64") for part in model.encode(x))
    return monitor, (z_mean, z_log_var), history, steps.columns(), (caught, counted), path


def test_the_monitor_counts_what_the_encoder_gives(watched):
    monitor, (z_mean, z_log_var), history, steps, *_ = watched
    kl = (0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var)).mean(axis=0)
    active = int((z_mean.var(axis=0) > 0.01).sum())
    assert active == 2
    assert [row["epoch"] for row in monitor.rows] == [1, 2, 3, 4]
    for row in monitor.rows:
        assert row["active_units"] == active
        np.testing.assert_allclose(row["kl_per_dimension"], kl, rtol=1e-5, atol=1e-7)
    assert history["active_units"] == [active] * 4
    norms = steps["gradient_norm"].reshape(4, 3).mean(axis=1)
    np.testing.assert_allclose(history["gradient_norm"], norms, rtol=1e-6)
    np.testing.assert_allclose(history["beta"], 1)


def test_dead_dimensions_are_named_once_after_the_warm_up_and_the_patience(watched):
    caught, counted = watched[4]
    assert counted == [0, 0, 1, 1, 1]  # 2 steps and 4 more are over with the second epoch
    (warning,) = caught
    assert warning.category is CollapseWarning
    assert str(warning.message).startswith("1 of 3 latent dimensions are inactive")


def test_nothing_is_said_where_every_dimension_is_active():
    model, monitor = make(keras.optimizers.SGD(0.0), run_eagerly=True), LatentMonitor(patience=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        model.fit(blobs(40) > 100, batch_size=20, verbose=0, callbacks=[monitor])
    assert monitor.rows[0]["active_units"] == 3


def test_keras_writes_the_same_figures_to_a_file_of_its_own(watched):
    *_, history, _, _, path = watched
    with open(path, newline="") as file:
        logged = list(csv.DictReader(file))
    names = {"loss", "reconstruction_loss", "kl_loss", "beta", "gradient_norm", "active_units"}
    assert set(logged[0]) >= names | {"epoch"}
    assert [row["epoch"] for row in logged] == ["0", "1", "2", "3"]
    for name in names:
        np.testing.assert_allclose([float(row[name]) for row in logged], history[name], rtol=1e-6)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_plain_fit_stops_at_the_first_step_that_is_not_finite(run_eagerly):
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 2:
                self.model.decoder.get_layer("logits").bias.assign(np.full(64, np.nan))

    model = make(run_eagerly=run_eagerly)
    with pytest.raises(FloatingPointError, match=r"At step 3, reconstruction_loss is nan\. .*rate"):
        model.fit(blobs(60), batch_size=10, verbose=0, callbacks=[Spoil()])
    assert model.optimizer.iterations == 3
