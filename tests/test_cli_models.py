"""The command on other models than the default one: convolutions in colour, and labels."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from test_train_own_model import Autoencoder, Labelled

from vae_tf import cli, plots
from vae_tf.training import TrainConfig, load_run, train


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def photographs(num, size):
    """Files with a disc of one colour on another, at a place of its own."""
    pathlib.Path("photos").mkdir()
    random, (rows, columns) = np.random.default_rng(0), np.mgrid[:size, :size]
    for index in range(num):
        row, column = random.integers(size // 4, 3 * size // 4, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < (size // 5) ** 2
        photo = np.where(disc[..., None], random.integers(0, 256, 3), random.integers(0, 256, 3))
        Image.fromarray(photo.astype(np.uint8)).save(f"photos/{index:02}.png")


@pytest.mark.slow
def test_colour_photographs_train_the_convolutional_network(capsys):
    photographs(40, 64)
    options = "--network conv --filters 4,8 --likelihood discretized_logistic --latent-dim 4"
    command = f"train --data photos {options} --batch-size 12 --steps 6 --run run"
    assert cli.main(command.split()) == 0
    out = capsys.readouterr().out
    assert "photos: 36 training and 4 test images of 64×64×3" in out
    assert "no log-likelihood" not in out  # bytes are what the likelihood is of
    record, model = load_run("run")
    assert record["config"]["network"] == "conv"
    assert record["config"]["filters"] == [4, 8]
    per_dimension = record["test"]["reconstruction_loss"] / (64 * 64 * 3 * np.log(2))
    assert 2 < per_dimension < 12  # bits; 8 is a byte that nothing is known of
    assert model.generate(3, seed=0).shape == (3, 64, 64, 3)
    names = {"reconstruct", "generated", "train_process", "traversal", "encodings"}
    assert {path.stem for path in pathlib.Path("run").glob("*.png")} == names
    plots.generated(model.generate(100, seed=0)).savefig("own.png", dpi=120)
    np.testing.assert_array_equal(pixels("run/generated.png"), pixels("own.png"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--network conv --hidden-units 16", "'hidden_units'.*network='dense' alone"),
        ("--filters 8", "'filters'.*network='conv' alone"),
        ("--network conv --filters 8,8,8,8", "'image_shape'.*16 divides.*8x8"),
        ("--network attention", "'network'.*'dense' or 'conv'.*'attention'"),
    ],
)
def test_networks_that_do_not_fit_are_refused_and_nothing_is_left(options, message, capsys):
    assert cli.main(["train", *options.split()]) == 2
    assert re.search(f"vae-tf train: error: .*{message}", capsys.readouterr().err)
    assert list(pathlib.Path().iterdir()) == []


@pytest.fixture
def labelled():
    """A run of a model that is told of labels, which `vae_tf.train` made."""
    x = np.repeat(np.uint8([0, 100, 200])[:, None], 64, axis=1).reshape(3, 8, 8)[np.arange(60) % 3]
    np.savez("x.npz", x_train=x, x_test=x[:9], y_train=np.arange(60) % 3, y_test=np.arange(9) % 3)
    train(TrainConfig(data="x.npz", steps=30, run="run"), progress=False, model=Labelled(seed=0))
    return load_run("run")[1]


def test_images_of_a_label_from_a_run_and_from_its_saved_model(labelled, capsys):
    assert cli.main(["export", "run", "--out", "served"]) == 0
    drawn = {}
    for label in (0, 2):
        images = labelled.generate(4, seed=3, condition=label)
        for source in ("run", "served"):
            options = f"--num 4 --seed 3 --label {label} --out made.npy"
            assert cli.main(["generate", source, *options.split()]) == 0
            np.testing.assert_allclose(np.load("made.npy"), images, atol=1e-6)
        drawn[label] = images
    assert (drawn[0] != drawn[2]).any()


@pytest.mark.parametrize("label", [[], ["--label", "7"]])
def test_a_label_that_is_missing_or_unknown_is_refused(label, labelled, capsys):
    assert cli.main(["generate", "run", *label]) == 2
    assert re.search("vae-tf generate: error: .*'label'", capsys.readouterr().err)


def test_a_label_for_a_model_that_takes_none_is_refused(capsys):
    np.savez("x.npz", x=np.zeros((20, 4, 4), bool))
    options = "--data x.npz --hidden-units 4 --latent-dim 2 --steps 2 --run run"
    assert cli.main(["train", *options.split()]) == 0
    assert cli.main(["generate", "run", "--label", "3"]) == 2
    words = r"error: .*'label'.*this model has no condition.*label=3"
    assert re.search(words, capsys.readouterr().err)


def test_the_summary_has_the_terms_that_the_model_has(capsys):
    """Of a model without `log_weights` the loss is not called a bound."""
    from vae_tf.cli.train import _summary

    record = {"test": {"loss": 12.5, "code_norm": 3.25}, "trained_steps": 7, "seconds": 1.0}
    pathlib.Path("config.json").write_text(json.dumps(record))
    _summary(record, pathlib.Path(), Autoencoder(seed=0), [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["Test loss            12.50 nats per image", "  code norm           3.25"]
    assert "  config.json" in lines
    assert "  latent.csv" not in lines  # there is none
