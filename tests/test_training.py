"""Recipes, the run directory and the callbacks."""

import json
import os
import signal
import time

import keras
import numpy as np
import pytest
from helpers import blobs

import vae_tf
from vae_tf import StepHistory, training
from vae_tf.engine import checkpoints, loop
from vae_tf.engine.callbacks import StopAt
from vae_tf.training import TrainConfig, load_history, load_run, prepare, runs, train

pytestmark = pytest.mark.xla


@pytest.fixture
def images_file(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x_train=blobs(130), x_test=blobs(30, seed=1), y_test=np.arange(30) % 3)
    return str(path)


def config(images_file, tmp_path, **kwargs):
    kwargs = {"steps": 50, "run": str(tmp_path / "run"), **kwargs}
    return TrainConfig(data=images_file, latent_dim=2, hidden_units=(16,), batch_size=20, **kwargs)


def test_the_run_directory_holds_everything(images_file, tmp_path):
    record = train(config(images_file, tmp_path), progress=False)
    loaded, model = load_run(tmp_path / "run")
    assert loaded == {k: v for k, v in record.items() if k != "path"}
    assert loaded["status"] == "completed"
    assert loaded["steps"] == 50
    assert loaded["data"]["train"] == 130
    x_test = runs.load_images(loaded).x_test
    evaluated = model.evaluate(x_test, batch_size=20, verbose=0, return_dict=True)
    for name, value in evaluated.items():
        assert loaded["test"][name] == pytest.approx(value, rel=1e-6)
    assert model.optimizer.iterations == 50
    history = load_history(tmp_path / "run")
    np.testing.assert_array_equal(history["step"], np.arange(1, 51))
    assert history["epoch"].max() == 8  # 7 batches in an epoch, so 50 steps end in the eighth
    assert np.isfinite(history["val_loss"]).sum() == 8
    np.testing.assert_allclose(
        history["loss"], history["reconstruction_loss"] + history["kl_loss"], rtol=1e-6
    )
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.json",
        "model.keras",
        "history.csv",
        "best.keras",
        "checkpoints",
        "latent.csv",
    }
    best = keras.models.load_model(tmp_path / "run" / "best.keras")
    lowest = np.nanmin(history["val_loss"])
    assert best.evaluate(x_test, batch_size=20, verbose=0)[0] == pytest.approx(lowest, rel=1e-5)


def test_the_original_recipe_is_adam_at_1e_3_held():
    recipe = training.RECIPES["original"]
    assert recipe.warmup == 0
    adam = recipe.optimizer(recipe.learning_rate, 100).get_config()
    assert {k: adam[k] for k in ("learning_rate", "beta_1", "beta_2")} == pytest.approx(
        {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999}
    )


@pytest.mark.slow
def test_the_default_recipe_warms_up_and_decays(images_file, tmp_path):
    plan = prepare(config(images_file, tmp_path))
    schedule = plan.recipe.optimizer(2e-3, plan.steps)._learning_rate
    steps = np.array([0, 10, 25, 50])
    expected = 2e-3 * 0.5 * (1 + np.cos(np.pi * steps / 50))
    np.testing.assert_allclose([float(schedule(s)) for s in steps], expected, atol=1e-9)
    train(plan, progress=False)
    beta = load_history(tmp_path / "run")["beta"]
    np.testing.assert_allclose(beta, np.minimum(1, np.arange(1, 51) / 15), rtol=1e-6)


def test_lengths(images_file, tmp_path):
    def steps(**kwargs):
        return prepare(config(images_file, tmp_path, **{"steps": None, **kwargs})).steps

    assert steps() == 7 * 200
    assert steps(epochs=3) == 21
    assert steps(steps=11) == 11
    mnist_like = training.Plan(
        None, None, vae_tf.Images("m", np.zeros((60000, 1)), None), None, 100, 0, 0
    )
    assert mnist_like.steps_per_epoch == 600


def test_the_record_is_each_step_first_and_thins_out(images_file, tmp_path):
    model, history = vae_tf.VAE(2, (4,), seed=0), vae_tf.StepHistory()
    model.compile()
    model.fit(blobs(1000), batch_size=10, epochs=5, verbose=0, callbacks=[history, StopAt(430)])
    steps = [row["step"] for row in history.rows]
    assert steps == [*range(1, 201), *range(210, 440, 10)]
    assert model.optimizer.iterations == 430


def test_the_record_is_of_each_step_and_not_a_running_mean():
    x = blobs(40)
    model, history = vae_tf.VAE(2, (16,), seed=0), vae_tf.StepHistory()
    model.compile(keras.optimizers.Adam(1e-2))
    logs = model.fit(x, batch_size=10, verbose=0, callbacks=[history]).history
    losses = history.columns()["loss"]
    assert len(np.unique(losses)) == 4
    assert losses.mean() == pytest.approx(logs["loss"][0], rel=1e-6)


def test_stop_at_lets_a_later_fit_go_on():
    model = vae_tf.VAE(2, (4,), seed=0)
    model.compile()
    model.fit(blobs(40), batch_size=10, epochs=9, verbose=0, callbacks=[StopAt(5)])
    assert model.optimizer.iterations == 5
    model.fit(blobs(40), batch_size=10, epochs=2, verbose=0)
    assert model.optimizer.iterations == 13


def test_ctrl_c_saves_what_there_is(images_file, tmp_path, monkeypatch):
    original = StepHistory.on_steps_end

    def interrupt(self, steps):
        original(self, steps)
        if len(self.rows) >= 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(StepHistory, "on_steps_end", interrupt)
    record = train(config(images_file, tmp_path, steps=5000), progress=False)
    # Within an execution, as by a second Ctrl-C: what has been made of it cannot be gone on with.
    words = "interrupted after 21 of 5000 steps, at once: its last checkpoint is of step 0"
    assert record["status"] == words
    loaded, model = load_run(tmp_path / "run")
    assert loaded["status"] == record["status"]
    assert model.optimizer.iterations == 21
    assert load_history(tmp_path / "run")["step"][-1] == 21


def test_ctrl_c_during_an_execution_leaves_each_of_its_steps_in_the_history(
    images_file, tmp_path, monkeypatch
):
    original = loop.make_train_function

    def interrupted(model):
        execute = original(model)

        def train_function(iterator):
            logs = execute(iterator)
            if model.steps_made >= 8:
                os.kill(os.getpid(), signal.SIGINT)  # as it would come at the end of native code
                time.sleep(0.01)
            return logs

        return train_function

    monkeypatch.setattr(loop, "make_train_function", interrupted)
    record = train(config(images_file, tmp_path, steps=5000), progress=False)
    state, _ = checkpoints.load_newest(tmp_path / "run" / "checkpoints")
    _, model = load_run(tmp_path / "run")
    assert state["step"] == model.steps_made
    assert 8 <= model.optimizer.iterations < 20
    assert record["status"] == f"interrupted after {model.steps_made} of 5000 steps"
    assert load_history(tmp_path / "run")["step"][-1] == model.steps_made
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recipe": "best"}, "recipe"),
        ({"steps": 5, "epochs": 5}, "steps"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"hidden_units": (0,)}, "hidden_units"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_configuration_that_makes_no_sense(arguments, words):
    with pytest.raises((ValueError, TypeError), match=f"'{words}'"):
        TrainConfig(**arguments)


def test_refusals_before_anything_is_written(images_file, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="'run'"):
        train(config(images_file, tmp_path))
    for change in ({"batch_size": 131}, {"data": "missing.npz"}):
        arguments = {"data": images_file, "run": str(tmp_path / "new"), **change}
        with pytest.raises(ValueError, match=f"'{next(iter(change))}'"):
            train(TrainConfig(**arguments))
    with pytest.raises(ValueError, match="'run'"):
        load_run(tmp_path / "run")
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_the_fingerprint_follows_the_data(images_file, tmp_path):
    one = runs.describe(prepare(config(images_file, tmp_path)))["data"]["sha256"]
    np.savez(images_file, x_train=blobs(130, seed=5), x_test=blobs(30, seed=1))
    other = runs.describe(prepare(config(images_file, tmp_path)))["data"]["sha256"]
    assert one != other
    assert json.dumps(one)


def test_a_loss_that_is_not_finite_stops_training_and_names_the_term(images_file, tmp_path):
    with pytest.raises(FloatingPointError, match=r"At step \d+, .*(reconstruction|kl)_loss is"):
        train(config(images_file, tmp_path, learning_rate=1e30), progress=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["status"].startswith(
        "diverged"
    )


def test_the_guard_names_the_first_bad_step_and_keeps_the_checkpoint_before_it(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 4:
                bias = self.model.encoder.get_layer("z_mean_and_log_var").bias
                bias.assign(np.full(4, np.nan))

    model = vae_tf.VAE(2, (4,), seed=0)
    model.compile(steps_per_execution=3)
    hooks = [Spoil(), vae_tf.FiniteGuard(), vae_tf.Checkpoints(tmp_path, every_steps=3)]
    with pytest.raises(FloatingPointError, match=r"At step 5, .*kl_loss is nan"):
        model.fit(blobs(40), batch_size=10, epochs=5, verbose=0, callbacks=hooks)
    state, _ = checkpoints.load_newest(tmp_path)
    assert state["step"] == 3
