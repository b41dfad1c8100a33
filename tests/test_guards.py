"""What training is asked for and what it watches: options, callbacks, guards."""

import csv
import importlib.util
import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import blobs

import vae_tf
from vae_tf import FreeBits, KLWarmup, LatentMonitor, StepHistory, cli, data, plots, training
from vae_tf.errors import CollapseWarning, GreyValuesWarning
from vae_tf.runs import load_history, load_run

RATE = 2**-7
SMALL = "--hidden-units 16 --latent-dim 2 --batch-size 20 --recipe original"


def make(optimizer=None, latent_dim=3, run_eagerly=False, steps_per_execution=1, **kwargs):
    """A model for images of 8×8; by default its callbacks are called at every step."""
    model = vae_tf.VAE(latent_dim, (16,), seed=0, **kwargs)
    model.build((None, 8, 8))
    model.compile(optimizer, steps_per_execution, run_eagerly=run_eagerly)
    return model


def flat(weights):
    return np.concatenate([np.ravel(weight) for weight in weights])


def trainable(model):
    return flat(model.trainable_weights)


def each(look, when="on_train_batch_end"):
    """A callback, and a list of what `look(model)` gives before training and at each such moment."""
    found, hook = [], keras.callbacks.Callback()
    for name in ("on_train_begin", when):
        setattr(hook, name, lambda *args, **kwargs: found.append(look(hook.model)))
    return hook, found


@pytest.fixture
def _bars(tmp_path, monkeypatch):
    """An empty directory but for images, of which no two are the same."""
    monkeypatch.chdir(tmp_path)
    np.savez("bars.npz", x_train=blobs(60), x_test=blobs(20, seed=1))


def asked_of_fit(monkeypatch, options):
    """The model, the images and the rest of what `vae-tf train` hands to `fit`."""
    found = []

    def fit(model, x, **kwargs):
        found.extend((model, x, kwargs))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vae_tf.VAE, "fit", fit)
        assert cli.main(["train", "--data", "bars.npz", *SMALL.split(), *options.split()]) == 130
    return found


# Options.


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("binarize", "always"), ("binarize", True), ("likelihood", "poisson"),
        ("activation", "nonsense"), ("clip_norm", 0), ("clip_norm", -1), ("clip_norm", "x"),
        ("kl_warmup", -1), ("kl_warmup", 1.5), ("beta", -1), ("beta", float("nan")),
        ("free_bits", -1), ("free_bits", float("inf")), ("validation", 0), ("validation", 1),
        ("validation", 2), ("early_stopping", 0),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_name(argument, value):
    with pytest.raises((ValueError, TypeError), match=f"'{argument}'.*{value}"):
        training.TrainConfig(**{argument: value})


@pytest.mark.parametrize("how", ["dynamic", "fixed"])
def test_binary_images_are_refused_where_the_likelihood_is_gaussian(how):
    with pytest.raises(ValueError, match=f"'binarize'.*not Bernoulli.*{how}"):
        training.TrainConfig(binarize=how, likelihood="gaussian")


@pytest.mark.usefixtures("_bars")
def test_options_reach_the_model_the_optimizer_and_the_callbacks(monkeypatch):
    options = "--clip-norm 0.5 --activation tanh --kl-warmup 7 --beta 0.3 --free-bits 0.2"
    model, _, kwargs = asked_of_fit(monkeypatch, f"{options} --likelihood gaussian")
    assert model.optimizer.global_clipnorm == 0.5
    assert model.encoder.get_layer("hidden_0").activation is keras.activations.tanh
    assert isinstance(model.likelihood, vae_tf.Gaussian)
    hooks = {type(hook): vars(hook) for hook in kwargs["callbacks"]}
    assert {"steps": 7, "beta": 0.3}.items() <= hooks[KLWarmup].items()
    assert hooks[FreeBits]["nats"] == 0.2
    model, _, kwargs = asked_of_fit(monkeypatch, "")
    assert model.optimizer.global_clipnorm is None


@pytest.mark.usefixtures("_bars")
def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch, capsys):
    original, there = importlib.util.find_spec, {"tensorboard": None}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: there.get(name, original(name, *rest))
    )
    assert cli.main(["train", "--data", "bars.npz", "--tensorboard", "--run", "new"]) == 2
    assert 'pip install "vae_tf[tensorboard]"' in capsys.readouterr().err
    assert [path.name for path in pathlib.Path().iterdir()] == ["bars.npz"]
    there["tensorboard"] = original("json")
    config = training.TrainConfig(data="bars.npz", tensorboard=True, run="new")
    assert training.prepare(config).path == pathlib.Path("new")


# Held-out images.


def evaluated(model, x):
    return model.evaluate(x, batch_size=20, verbose=0, return_dict=True)["loss"]


@pytest.mark.usefixtures("_bars")
def test_the_held_out_are_training_images_that_are_not_trained_on(monkeypatch):
    images = data.load(data="bars.npz")
    found = [asked_of_fit(monkeypatch, f"--validation 0.25 --seed {seed}") for seed in (0, 1)]
    for _, trained_on, kwargs in found:
        held = kwargs["validation_data"]
        assert (len(trained_on), len(held)) == (45, 15)
        parts = [{image.tobytes() for image in x} for x in (held, trained_on, images.x_train)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == parts[2]
    np.testing.assert_array_equal(found[0][2]["validation_data"], found[1][2]["validation_data"])
    _, trained_on, kwargs = asked_of_fit(monkeypatch, "--early-stopping 3")
    assert (len(trained_on), len(kwargs["validation_data"])) == (54, 6)
    _, trained_on, kwargs = asked_of_fit(monkeypatch, "")
    assert len(trained_on) == 60
    np.testing.assert_array_equal(kwargs["validation_data"], images.x_test)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run whose rate is so high that its loss on held-out images soon rises: `(record, path)`."""
    folder = tmp_path_factory.mktemp("stopped")
    np.savez(folder / "bars.npz", x_train=blobs(60), x_test=blobs(20, seed=1))
    options = "--early-stopping 2 --validation 0.25 --learning-rate 0.1 --epochs 60"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(plots, "draw", lambda *args: [])
        command = f"train --data bars.npz {SMALL} {options} --kl-warmup 4 --beta 0.5 --run run"
        assert cli.main(command.split()) == 0
    return json.loads((folder / "run" / "config.json").read_text()), folder / "run"


def test_early_stopping_stops_and_keeps_the_best_on_the_held_out_images(stopped):
    record, path = stopped
    history = load_history(path)
    at = np.flatnonzero(np.isfinite(history["val_loss"]))
    losses, steps = history["val_loss"][at], history["step"][at]
    best = losses.argmin()
    assert best == len(losses) - 3  # and two epochs that were no better
    assert record["trained_steps"] == steps[-1] < record["steps"] == 180
    assert record["best_step"] == steps[best]
    images, (_, model) = data.load(data=path.parent / "bars.npz"), load_run(path)
    held = data.hold_out(images, 0.25).x_test
    assert evaluated(model, held) == pytest.approx(losses[best], rel=1e-5)
    test_loss = evaluated(model, images.x_test)
    assert record["test"]["loss"] == pytest.approx(test_loss, rel=1e-5)
    assert test_loss != pytest.approx(losses[best], rel=1e-4)


def test_the_run_records_the_warm_up_and_what_each_dimension_carries(stopped):
    _, path = stopped
    history = load_history(path)
    np.testing.assert_allclose(history["beta"][:6], [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    with open(path / "latent.csv", newline="") as file:
        latent = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in latent] == [*range(1, int(history["epoch"][-1]) + 1)]
    for row in latent:
        assert list(row) == ["epoch", "active_units", "kl_0", "kl_1"]
        steps = history["epoch"] == int(row["epoch"])
        kl = float(row["kl_0"]) + float(row["kl_1"])
        expected = np.average(history["kl_loss"][steps][:3], weights=[20, 20, 5])  # images
        assert kl == pytest.approx(expected, rel=1e-4)


def test_the_history_of_a_run_has_the_active_units_of_the_epochs_that_were_validated(stopped):
    _, path = stopped
    history = load_history(path)
    with open(path / "latent.csv", newline="") as file:
        expected = [float(row["active_units"]) for row in csv.DictReader(file)]
    at = np.isfinite(history["val_loss"])
    np.testing.assert_array_equal(history["active_units"][at], expected)


# The objective, step by step.


@pytest.fixture(scope="module")
def descent():
    """Six steps of plain gradient descent: the free bits, the weights at each step, the record."""
    model = make(keras.optimizers.SGD(RATE))
    kl = vae_tf.gaussian_kl(*model.encode(blobs(10)), axis=None).numpy().mean(0)
    (hook, weights), history = each(trainable), StepHistory()
    nats = float(np.median(kl) + kl.max()) / 2
    hooks = [hook, history, KLWarmup(4, beta=0.5), FreeBits(nats)]
    model.fit(blobs(10), epochs=6, batch_size=10, shuffle=False, verbose=0, callbacks=hooks)
    return nats, weights, history.columns()


def test_the_gradient_is_that_of_the_weighed_and_floored_kl(descent):
    nats, weights, _ = descent
    twin, images = make(), blobs(10).astype("float32") / 255
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


# What `fit` watches.


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Four epochs at rate 0 of a model with one dead dimension of three; 3 steps an epoch."""
    path = tmp_path_factory.mktemp("watched") / "log.csv"
    model, monitor, steps = (
        make(keras.optimizers.SGD(0.0)),
        LatentMonitor(patience=4),
        StepHistory(),
    )
    layer = model.encoder.get_layer("z_mean_and_log_var")
    layer.kernel.assign(layer.kernel.numpy() * [2, 0, 2, 1, 0, 1])
    layer.bias.assign([0, 1, 0, 0, 0, 0])  # dead, and not at 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        hook, counted = each(lambda _: len(caught), "on_epoch_end")
        hooks = [KLWarmup(2), monitor, steps, hook, keras.callbacks.CSVLogger(path)]
        x = blobs(60) > 100
        history = model.fit(x, batch_size=25, epochs=4, verbose=0, callbacks=hooks).history
    z_mean, z_log_var = (part.numpy().astype("float64") for part in model.encode(x))
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


# What the images must be.


@pytest.mark.parametrize("form", [np.asarray, lambda x: tf.data.Dataset.from_tensor_slices(x).batch(10)])  # fmt: skip
def test_grey_values_are_named_once_before_training_begins(form):
    model = make(run_eagerly=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hook, counted = each(lambda _: len(caught), "on_epoch_end")
        kwargs = {"validation_data": blobs(10), "callbacks": [hook], "verbose": 0}
        model.fit(form(blobs(20)), epochs=2, **kwargs)
    assert counted == [1, 1, 1]
    assert "no log-likelihood" in str(caught[0].message)
    assert caught[0].category is GreyValuesWarning
    assert caught[0].filename == __file__  # it points to the call of `fit`


@pytest.mark.parametrize(
    ("x", "kwargs"),
    [
        (blobs(10) > 100, {}),
        ((blobs(10) > 100) * np.uint8(255), {}),
        ((blobs(10) > 100).astype("float32"), {}),
        (blobs(10), {"binarize": True}),
        (blobs(10), {"likelihood": "gaussian"}),
    ],
)
def test_binary_images_or_another_likelihood_are_nothing_to_warn_of(x, kwargs):
    model = make(run_eagerly=True, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, verbose=0)
    assert model.optimizer.iterations == 1


@pytest.mark.usefixtures("_bars")
@pytest.mark.parametrize(("how", "said"), [("none", True), ("dynamic", False), ("fixed", False)])
def test_the_command_says_it_in_words_instead(how, said, monkeypatch, capsys):
    def stop(self, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.KLWarmup, "on_train_begin", stop)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        command = ["train", "--data", "bars.npz", *SMALL.split(), "--binarize", how]
        assert cli.main(command) == 130
    out, err = capsys.readouterr()
    assert ("no log-likelihood" in out and "--binarize dynamic" in out) == said
    assert caught == []
    assert "warning" not in err.lower()


def test_floats_of_any_value_are_for_a_gaussian_likelihood_alone():
    x = np.random.default_rng(0).uniform(-3, 3, (10, 8, 8)).astype("float32")
    with pytest.raises(ValueError, match=r"'x'.*floats in \[0, 1\].*values from -2\.9"):
        make(run_eagerly=True).fit(x, verbose=0)
    model, twin = (make(likelihood="gaussian", run_eagerly=True) for _ in range(2))
    loss = model.fit(x, shuffle=False, verbose=0).history["reconstruction_loss"]
    z_mean, z_log_var = twin.encoder(x)
    means = twin.decoder(z_mean + tf.exp(0.5 * z_log_var) * twin.sampling((z_mean * 0, z_mean * 0)))
    expected = -scipy.stats.norm(means, 1).logpdf(x).sum(axis=(1, 2)).mean()
    assert loss == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused_by_either(likelihood, value):
    x = np.zeros((10, 8, 8), "float32")
    x[3, 1, 2] = value
    with pytest.raises(ValueError, match=r"'x'.*finite values.*1 of 10 images.*\(3, 1, 2\)"):
        make(likelihood=likelihood, run_eagerly=True).fit(x, verbose=0)


# Binary images.


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_binary_images_are_seeded_draws_with_the_grey_values_for_means(scale):
    image = np.linspace(0, 255, 64).reshape(8, 8, 1).astype("uint8")
    x = np.repeat(image[None], 4000, axis=0)
    x = x if scale == 1 else (x * np.float32(scale))
    images = data.Images("same", x, x[:100])
    drawn = data.binarize(images, seed=3)
    assert drawn.x_train.dtype == drawn.x_test.dtype == bool
    p = image / 255
    errors = np.abs(drawn.x_train.mean(axis=0) - p) / np.maximum(np.sqrt(p * (1 - p) / 4000), 1e-9)
    assert errors.max() < 4.5  # standard errors; black and white are never drawn otherwise
    np.testing.assert_array_equal(drawn.x_train, data.binarize(images, seed=3).x_train)
    for other in (drawn.x_test, data.binarize(images, seed=4).x_train[:100]):
        assert (other != drawn.x_train[:100]).any()


@pytest.mark.usefixtures("_bars")
def test_fixed_images_are_the_same_in_runs_of_any_seed(monkeypatch):
    options = "--binarize fixed --seed"
    (one, x, kwargs), (two, again, _) = (
        asked_of_fit(monkeypatch, f"{options} {s}") for s in (0, 1)
    )
    assert (trainable(one) != trainable(two)).any()
    np.testing.assert_array_equal(x, again)
    images = data.binarize(data.load(data="bars.npz"))
    np.testing.assert_array_equal(x, images.x_train)
    np.testing.assert_array_equal(kwargs["validation_data"], images.x_test)
    assert one.binarize is None


def test_a_run_on_draws_that_change_goes_on_bit_for_bit(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 5:
                raise RuntimeError("crash")

    def fit(folder, *hooks):
        model = make(keras.optimizers.SGD(RATE), binarize=True)
        hooks = [vae_tf.Checkpoints(tmp_path / folder, every_steps=1), *hooks]
        model.fit(blobs(30), batch_size=10, epochs=3, verbose=0, callbacks=hooks)
        return model

    whole = fit("whole")
    with pytest.raises(RuntimeError, match="crash"):
        fit("crashed", Crash())
    resumed = fit("crashed")
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    assert resumed.optimizer.iterations == 9
