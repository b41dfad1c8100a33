"""The held-out experiment: `held_out_experiment`, and `vae-tf held-out`."""

import json

import numpy as np
import pytest
from helpers import blobs
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import vae_tf
from vae_tf import data
from vae_tf.applications import held_out
from vae_tf.cli import main
from vae_tf.errors import InvalidValueError


def bars(num=80, **others):
    x, more = blobs(num)[..., None], blobs(num, seed=1)[..., None]
    y, of_more = (images.argmax(axis=1)[:, 0, 0] // 3 for images in (x, more))  # 0, 1 and 2
    return data.Images("bars", x, more, **{"y_train": y, "y_test": of_more} | others)


def untrained(images, label):
    model = vae_tf.Autoencoder(latent_dim=2, hidden_units=(4,), seed=0)
    model.build((None, *images.image_shape))
    return model


def test_each_label_is_held_out_of_its_own_models_training():
    images, seen = bars(), {}

    def train(normal, label):
        seen[label] = normal
        return untrained(normal, label)

    found = dict(held_out.held_out_experiment(images, train, components=3))
    assert list(found) == [0, 1, 2]
    for label, normal in seen.items():
        assert label not in normal.y_train
        assert label not in normal.y_test
        assert len(normal.x_train) == (images.y_train != label).sum()
        assert found[label]["anomalous"] == (images.y_test == label).sum()
        x, test = (a.reshape(len(a), -1) / 255 for a in (normal.x_train, images.x_test))
        pca = PCA(3).fit(x)
        errors = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).mean(axis=1)
        expected = roc_auc_score(images.y_test == label, errors)
        assert found[label]["scores"]["pca"]["auroc"][0] == pytest.approx(expected, abs=1e-4)
        made = untrained(images, 0).reconstruct(images.x_test)
        errors = ((made - images.x_test / 255) ** 2).reshape(len(made), -1).mean(axis=1)
        expected = roc_auc_score(images.y_test == label, errors)
        score = found[label]["scores"]["reconstruction_error"]
        assert score["auroc"][0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("images", "given", "words"),
    [
        (bars(y_test=None), {}, "images with a label each"),
        (bars(), {"labels": [7]}, r"labels of the test images \(0, 1, 2\).*Received: 7"),
        (bars(), {"components": 65}, "'components': expected at most"),
        (bars(y_test=np.zeros(80, int)), {}, "test images of two labels"),
    ],
)
def test_what_has_no_held_out_label_is_refused(images, given, words):
    with pytest.raises(InvalidValueError, match=words):
        next(held_out.held_out_experiment(images, untrained, **given))


@pytest.mark.slow
def test_the_command_writes_each_label_and_goes_on(tmp_path, capsys, monkeypatch):
    images = bars()
    parts = {name: getattr(images, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "bars.npz", **parts)
    options = (
        "--data",
        tmp_path / "bars.npz",
        "--steps",
        3,
        "--hidden-units",
        4,
        "--latent-dim",
        2,
    )
    options += ("--components", 3, "--run", tmp_path / "run")

    def command(*words):
        return main(["held-out", *map(str, (*options, *words))])

    judged, calls = held_out._judged, []

    def twice(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judged(*arguments)

    monkeypatch.setattr(held_out, "_judged", twice)
    assert command() == 130  # in the second of three
    first = json.loads((tmp_path / "run" / "results.json").read_text())["labels"]
    assert list(first) == ["0"]
    assert "the same command" in capsys.readouterr().err
    assert command() == 0
    words = capsys.readouterr().out
    assert "3 labels, 1 of them done" in words
    found = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert list(found["labels"]) == ["0", "1", "2"]
    assert found["labels"]["0"] == first["0"]
    areas = [found["labels"][label]["scores"]["pca"]["auroc"][0] for label in "012"]
    assert found["means"]["pca"]["auroc"] == pytest.approx(np.mean(areas))
    assert (tmp_path / "run" / "without_2" / "model.keras").is_file()
    assert command("--seed", 1) == 2
    assert "a directory of the same experiment" in capsys.readouterr().err
