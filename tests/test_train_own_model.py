"""`vae_tf.train` on a model of one's own: the run directory, resuming, labels, what is refused."""

import io
import json
import sys

import keras
import numpy as np
import pytest
from helpers import blobs
from keras import layers, ops

import vae_tf
from vae_tf.training import TrainConfig, load_history, load_run, prepare_resume, train
from vae_tf.training.progress import Progress


@keras.saving.register_keras_serializable(package="train_own_model")
class Autoencoder(vae_tf.Model):
    """Without noise, without KL, and with a second term, of what the code is worth."""

    latent_dim = 2

    def __init__(self, likelihood=None, **kwargs):
        super().__init__(likelihood or vae_tf.Gaussian(sigma=1.0), **kwargs)

    def build(self, input_shape):
        glorot = keras.initializers.GlorotUniform
        first, second = (glorot(seed) for seed in self.weight_seeds[:2])
        self.encoder = keras.Sequential(
            [layers.Flatten(), layers.Dense(2, kernel_initializer=first)]
        )
        size = int(np.prod(input_shape[1:]))
        self.decoder = keras.Sequential(
            [layers.Dense(size, kernel_initializer=second), layers.Reshape(input_shape[1:])]
        )
        self.encoder.build(input_shape)
        self.decoder.build((None, self.code_size))
        super().build(input_shape)

    code_size = 2

    def encode(self, x, *condition):
        return self.encoder(x)

    def decode(self, z, *condition):
        return self.decoder(z)

    def terms(self, x, *condition, training=False):
        z = self.encode(x, *condition)
        loss = -self.likelihood.log_prob(self.decode(z, *condition), x)
        return {"loss": loss, "code_norm": ops.norm(z, axis=-1)}


@keras.saving.register_keras_serializable(package="train_own_model")
class Labelled(Autoencoder):
    """Told of the label of each image, one of three."""

    condition = vae_tf.Condition(num_classes=3)
    code_size = 5

    def sample_prior(self, num, *condition):
        return self.noise.normal(ops.zeros((num, self.latent_dim)))

    def decode(self, z, *condition):
        (label,) = condition
        return self.decoder(ops.concatenate([z, ops.one_hot(label, 3)], axis=-1))


class Unknown(Autoencoder):
    """A class that Keras is not told of."""


@pytest.fixture
def images(tmp_path):
    labels = {"y_train": np.arange(100) % 3, "y_test": np.arange(30) % 3}
    np.savez(tmp_path / "images.npz", x_train=blobs(100), x_test=blobs(30, seed=1) > 100, **labels)
    return tmp_path / "images.npz"


def config(images, name="run", **kwargs):
    kwargs = {"steps": 20, "batch_size": 20, "recipe": "original", **kwargs}
    return TrainConfig(data=str(images), run=str(images.parent / name), **kwargs)


def test_it_is_trained_in_place_and_its_run_holds_its_terms(images):
    model = Autoencoder(seed=0)
    record = train(config(images), progress=False, model=model)
    run = images.parent / "run"
    assert record["status"] == "completed"
    assert record["model"] == "Autoencoder"
    assert model.optimizer.iterations == 20
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)  # the recipe's
    names = {path.name for path in run.iterdir()}
    assert names == {"config.json", "model.keras", "history.csv", "best.keras", "checkpoints"}
    with open(run / "history.csv") as file:
        columns = file.readline().strip().split(",")
    assert columns[:5] == ["step", "epoch", "loss", "code_norm", "gradient_norm"]
    assert set(columns[5:]) == {"val_loss", "val_code_norm"}
    assert list(record["test"]) == ["loss", "code_norm"]
    history = load_history(run)
    assert list(history) == columns
    assert history["loss"][-1] < history["loss"][0]
    assert np.isfinite(history["code_norm"]).all()
    assert np.isfinite(history["val_loss"]).sum() == 4
    loaded = load_run(run)[1]
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_record_of_the_test_set_is_the_models_own_figure(images):
    model = Autoencoder(seed=0)
    record = train(config(images), progress=False, model=model)
    x = np.load(images)["x_test"].reshape(30, -1).astype("float64")
    weights = {weight.path: np.array(weight) for weight in model.trainable_weights}
    kernel, bias, kernel_2, bias_2 = weights.values()
    z = x @ kernel + bias
    squares = ((z @ kernel_2 + bias_2 - x) ** 2).sum(axis=1)
    assert record["test"]["loss"] == pytest.approx(
        (0.5 * squares + 32 * np.log(2 * np.pi)).mean(), rel=1e-5
    )
    assert record["test"]["code_norm"] == pytest.approx(
        np.sqrt((z**2).sum(axis=1)).mean(), rel=1e-5
    )


def test_interrupted_and_resumed_is_uninterrupted(images, monkeypatch):
    whole = Autoencoder(seed=0)
    train(config(images, "whole", checkpoint_every=5), progress=False, model=whole)
    original = vae_tf.StepHistory.on_steps_end

    def interrupt(self, steps):
        original(self, steps)
        if steps.last >= 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vae_tf.StepHistory, "on_steps_end", interrupt)
        part = config(images, "part", checkpoint_every=5)
        record = train(part, progress=False, model=Autoencoder(seed=0))
    assert record["status"].startswith("interrupted after 10 of 20 steps, at once")
    folder = images.parent / "part"
    with pytest.raises(ValueError, match=r"'model'.*is your own.*prepare_resume\(RUN\), model="):
        train(prepare_resume(folder), progress=False)
    resumed = Autoencoder(seed=0)
    assert train(prepare_resume(folder), False, resumed)["status"] == "completed"
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [(images.parent / name / "history.csv").read_bytes() for name in ("part", "whole")]
    assert histories[0] == histories[1]


def test_a_model_that_is_compiled_keeps_its_optimizer(images):
    model = Autoencoder(seed=0)
    model.compile(keras.optimizers.SGD(0.5))
    train(config(images, steps=5), progress=False, model=model)
    assert isinstance(model.optimizer, keras.optimizers.SGD)


@pytest.mark.slow
def test_early_stopping_loads_the_best_of_a_class_that_keras_is_not_told_of(images):
    asked = config(images, early_stopping=1, epochs=20, steps=None, learning_rate=0.5)
    record = train(asked, progress=False, model=Unknown(seed=0))
    assert record["best_step"] <= record["trained_steps"] <= 100
    with pytest.raises(ValueError, match=r"'run'.*class 'Unknown'.*register_keras_serializable"):
        load_run(images.parent / "run")


@pytest.mark.slow
def test_a_model_with_a_condition_is_given_the_labels(images):
    losses = {}
    for name, labels in (("true", np.arange(100) % 3), ("same", np.zeros(100, int))):
        x = np.repeat(np.arange(3)[:, None] * 100, 64, axis=1).reshape(3, 8, 8, 1)
        arrays = {"x_train": x[np.arange(100) % 3], "x_test": x, "y_train": labels}
        np.savez(images, **arrays, y_test=np.arange(3))
        asked = config(images, name, steps=200, learning_rate=0.05)
        train(asked, progress=False, model=Labelled(seed=0))
        losses[name] = load_history(images.parent / name)["loss"][-1]
        _, model = load_run(images.parent / name)
        model.encoder.layers[-1].kernel.assign(np.zeros((64, 2)))
        pictures = model.reconstruct(x.astype("uint8"), np.arange(3)).mean(axis=(1, 2, 3)) * 255
        assert (np.ptp(pictures) > 100) == (name == "true")  # the label alone says which
    assert losses["true"] < losses["same"] + 1e-3


@pytest.mark.parametrize("missing", ["y_train", "y_test"])
def test_a_model_with_a_condition_is_refused_where_there_are_no_labels(missing, images):
    arrays = dict(np.load(images))
    arrays.pop(missing)
    np.savez(images, **arrays)
    with pytest.raises(ValueError, match=r"'data'.*labels, which Labelled.*no labels of the"):
        train(config(images), model=Labelled(seed=0))
    assert not (images.parent / "run").exists()


def test_labels_that_do_not_fit_are_refused_and_nothing_is_left(images):
    np.savez(images, **dict(np.load(images)) | {"y_train": np.arange(100)})
    with pytest.raises(ValueError, match=r"'y'.*labels from 0 to 2"):
        train(config(images), progress=False, model=Labelled(seed=0))
    assert not (images.parent / "run").exists()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"latent_dim": 3}, "latent_dim"),
        ({"hidden_units": (8,)}, "hidden_units"),
        ({"likelihood": "gaussian"}, "likelihood"),
        ({"binarize": "dynamic"}, "binarize"),
        ({"beta": 0.5}, "beta"),
        ({"kl_warmup": 5}, "kl_warmup"),
        ({"free_bits": 0.1}, "free_bits"),
    ],
)
def test_options_that_it_does_not_take_are_refused(options, name, images):
    with pytest.raises(ValueError, match=f"'{name}'.*Autoencoder does not take this"):
        train(config(images, **options), model=Autoencoder(seed=0))
    assert not (images.parent / "run").exists()


def test_what_is_no_model_is_refused(images):
    with pytest.raises(TypeError, match=r"'model'.*vae_tf\.Model.*Sequential"):
        train(config(images), model=keras.Sequential())


def test_the_record_is_whole_from_the_beginning(images):
    class Look(Autoencoder):
        def fit(self, *args, **kwargs):
            seen.append(json.loads((images.parent / "run" / "config.json").read_text()))
            return super().fit(*args, **kwargs)

    seen = []
    train(config(images, steps=5), progress=False, model=Look(seed=0))
    assert seen[0]["status"] == "training"
    assert seen[0]["model"] == "Look"


def test_a_training_that_fails_leaves_the_terminal_as_it_was(images, monkeypatch):
    class Failing(Autoencoder):
        def fit(self, *args, callbacks, **kwargs):
            (bar,) = (hook for hook in callbacks if isinstance(hook, Progress))
            bar.set_model(self)
            bar.on_train_begin()
            raise FloatingPointError("At step 1, loss is nan.")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(FloatingPointError):
        train(config(images), model=Failing(seed=0))
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1
