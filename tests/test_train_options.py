"""What `vae-tf train` is asked for reaches the model, the optimizer, the callbacks and the run."""

import csv
import importlib.util
import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
from helpers import blobs

import vae_tf
from vae_tf import FreeBits, KLWarmup, cli, data, plots, training
from vae_tf.training import load_history, load_run

SMALL = "--hidden-units 16 --latent-dim 2 --batch-size 20 --recipe original"


@pytest.fixture
def _bars(tmp_path, monkeypatch):
    """An empty directory but for images, of which no two are the same."""
    monkeypatch.chdir(tmp_path)
    np.savez("bars.npz", x_train=blobs(60), x_test=blobs(20, seed=1))


def handed_to_fit(monkeypatch, options, network=SMALL):
    """The model, the images and the rest that `vae-tf train` hands to `fit`, which does nothing."""
    calls = []

    def fit(model, x, y, **kwargs):
        calls.append((model, x, kwargs))

    with monkeypatch.context() as patch:
        patch.setattr(vae_tf.VAE, "fit", fit)
        patch.setattr(vae_tf.VAE, "evaluate", lambda *args, **kwargs: {"loss": 0.0})
        patch.setattr(cli.train, "draw", lambda *args: (calls[0][0], []))
        assert cli.main(["train", "--data", "bars.npz", *network.split(), *options.split()]) == 0
    (call,) = calls
    return call


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
    model, _, kwargs = handed_to_fit(monkeypatch, f"{options} --likelihood gaussian")
    assert model.optimizer.global_clipnorm == 0.5
    assert model.encoder.get_layer("hidden_0").activation is keras.activations.tanh
    assert isinstance(model.likelihood, vae_tf.Gaussian)
    hooks = {type(hook): vars(hook) for hook in kwargs["callbacks"]}
    assert {"steps": 7, "beta": 0.3}.items() <= hooks[KLWarmup].items()
    assert hooks[FreeBits]["nats"] == 0.2
    model, _, kwargs = handed_to_fit(monkeypatch, "")
    assert model.optimizer.global_clipnorm is None


@pytest.mark.usefixtures("_bars")
def test_the_network_and_its_sizes_reach_the_model(monkeypatch):
    options = "--network conv --filters 3,5 --latent-dim 2"
    model, *_ = handed_to_fit(monkeypatch, options, network="")
    kernels = [w.shape for w in model.encoder.weights if len(w.shape) == 4]
    assert kernels == [(3, 3, 1, 3), (3, 3, 3, 5)]
    with pytest.MonkeyPatch.context() as patch:  # the networks' own sizes
        model, *_ = handed_to_fit(patch, "--network conv", network="")
        assert [w.shape[-1] for w in model.encoder.weights if len(w.shape) == 4] == [32]
        model, *_ = handed_to_fit(patch, "", network="")
        assert [w.shape[-1] for w in model.encoder.weights if len(w.shape) == 2] == [
            512,
            384,
            256,
            20,
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"network": "conv", "hidden_units": (16,)},
            r"'hidden_units'.*network='dense' alone.*'conv'",
        ),
        ({"filters": (16,)}, r"'filters'.*network='conv' alone.*'dense'"),
        ({"network": "conv", "filters": ()}, r"'filters'.*at least one layer"),
        ({"network": "transformer"}, r"'network'.*'dense' or 'conv'.*'transformer'"),
    ],
)
def test_sizes_of_the_other_network_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        training.TrainConfig(**options)


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
    found = [handed_to_fit(monkeypatch, f"--validation 0.25 --seed {seed}") for seed in (0, 1)]
    for _, trained_on, kwargs in found:
        held = kwargs["validation_data"]
        assert (len(trained_on), len(held)) == (45, 15)
        parts = [{image.tobytes() for image in x} for x in (held, trained_on, images.x_train)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == parts[2]
    np.testing.assert_array_equal(found[0][2]["validation_data"], found[1][2]["validation_data"])
    watched = training.prepare(training.TrainConfig(data="bars.npz", early_stopping=3)).watched
    assert (len(watched.x_train), len(watched.x_test)) == (54, 6)
    _, trained_on, kwargs = handed_to_fit(monkeypatch, "")
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
        assert list(row) == ["epoch", "active_units", "kl_z1", "kl_z2", "std_z1", "std_z2"]
        steps = history["epoch"] == int(row["epoch"])
        kl = float(row["kl_z1"]) + float(row["kl_z2"])
        expected = np.average(history["kl_loss"][steps][:3], weights=[20, 20, 5])  # images
        assert kl == pytest.approx(expected, rel=1e-4)


def test_the_history_of_a_run_has_the_active_units_of_the_epochs_that_were_validated(stopped):
    _, path = stopped
    history = load_history(path)
    with open(path / "latent.csv", newline="") as file:
        expected = [float(row["active_units"]) for row in csv.DictReader(file)]
    at = np.isfinite(history["val_loss"])
    np.testing.assert_array_equal(history["active_units"][at], expected)


@pytest.mark.usefixtures("_bars")
@pytest.mark.parametrize(
    ("how", "said"),
    [("none", True), ("dynamic", False), pytest.param("fixed", False, marks=pytest.mark.slow)],
)
def test_the_command_says_it_in_words_instead(how, said, monkeypatch, capsys):
    monkeypatch.setattr(plots, "draw", lambda *args: [])
    command = f"train --data bars.npz {SMALL} --steps 1 --binarize {how}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        assert cli.main(command.split()) == 0
    out, err = capsys.readouterr()
    assert ("no log-likelihood" in out and "--binarize dynamic" in out) == said
    assert caught == []
    assert "warning" not in err.lower()


@pytest.mark.usefixtures("_bars")
@pytest.mark.parametrize(
    ("likelihood", "said"),
    [("continuous_bernoulli", False), ("gaussian", False), ("discretized_logistic", False)],
)
def test_grey_values_are_nothing_to_speak_of_where_the_likelihood_is_of_them(
    likelihood, said, monkeypatch, capsys
):
    handed_to_fit(monkeypatch, f"--likelihood {likelihood}")
    assert ("no log-likelihood" in capsys.readouterr().out) == said


@pytest.mark.usefixtures("_bars")
def test_floats_that_are_no_bytes_are_named_where_the_likelihood_is_of_bytes(monkeypatch, capsys):
    np.savez("bars.npz", x=np.random.default_rng(0).random((40, 8, 8)))
    handed_to_fit(monkeypatch, "--likelihood discretized_logistic")
    words = "'discretized_logistic' is not of: the figures are no log-likelihoods"
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("_bars")
def test_fixed_images_are_the_same_in_runs_of_any_seed(monkeypatch):
    options = "--binarize fixed --seed"
    (one, x, kwargs), (two, again, _) = (
        handed_to_fit(monkeypatch, f"{options} {s}") for s in (0, 1)
    )
    weights = zip(one.trainable_weights, two.trainable_weights, strict=True)
    assert any((np.array(a) != np.array(b)).any() for a, b in weights)
    np.testing.assert_array_equal(x, again)
    images = data.binarize(data.load(data="bars.npz"))
    np.testing.assert_array_equal(x, images.x_train)
    np.testing.assert_array_equal(kwargs["validation_data"], images.x_test)
    assert one.binarize is None


def test_the_warm_up_is_the_recipes_but_a_beta_vae_holds_its_weight():
    def warmup(**kwargs):
        return training.prepare(training.TrainConfig(steps=100, **kwargs)).warmup_steps

    assert warmup() == warmup(model="iwae") == 30
    assert warmup(recipe="original") == warmup(model="betavae") == 0
    assert warmup(model="betavae", kl_warmup=7) == 7


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"capacity": 5, "beta": 2.0}, "beta"),
        ({"capacity": 5, "kl_warmup": 10}, "kl_warmup"),
        ({"gamma": 3.0}, "gamma"),
        ({"capacity_steps": 3}, "capacity_steps"),
    ],
)
def test_a_capacity_has_no_weight_and_a_weight_no_capacity(options, name):
    with pytest.raises(ValueError, match=f"'{name}'.*capacity"):
        training.TrainConfig(model="betavae", **options)


@pytest.mark.parametrize(
    ("option", "model"),
    [
        ({"num_samples": 3}, "vae"), ({"latent_dim": 3}, "vqvae"), ({"codebook": "loss"}, "iwae"),
        ({"latent_dims": (3, 2)}, "vae"), ({"beta": 2.0}, "vqvae"), ({"network": "conv"}, "hierarchicalvae"),
    ],
)  # fmt: skip
def test_an_option_that_a_model_does_not_have_is_refused_with_those_that_have_it(option, model):
    (name,) = option
    with pytest.raises(ValueError, match=f"'{name}': expected it with model=.* alone.*{model}"):
        training.TrainConfig(model=model, **option)
