"""What `vae-tf train` does with a user's own images: refuses them early, watches, records, loads again."""

import json
import pathlib

import numpy as np
import pytest
from helpers import blobs, run_python
from PIL import Image
from test_train_options import handed_to_fit

from vae_tf import data, training
from vae_tf.training import runs


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(folder, images):
    """Image files that are called after their number; returns the folder's name."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return str(folder)


# Mistakes that are seen without TensorFlow, whose import takes seconds.

EARLY = {
    "--data nowhere": "'nowhere', which does not exist",
    "--data empty": "'empty', which holds no files",
    "--data notes.txt": "'notes.txt'",
    "--data nowhere --activation tanh": "does not exist",
    "--data images.npz --run empty": "'empty'. Give another name",
    "--run empty": "'empty'. Give another name",
    "--dataset images.npz": "--data images.npz",
    "--data images.npz --likelihood bernoulli": r"--likelihood gaussian",
    "--data photos --resize 0": "'resize'",
    "--data photos": "--resize 8x8",
    "--data photos --resize 8 --batch-size 5": "at most the 3 training images",
    "--background nonsense": "'background'",
    "--steps 0": "'steps'",
}


def test_mistakes_are_told_before_tensorflow_is_imported(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hi")
    np.savez("images.npz", x=np.linspace(-1, 1, 640).reshape(10, 8, 8))
    write("photos", [*blobs(3), *blobs(1, (9, 9))])
    printed = run_python(
        "import contextlib, io, json, shlex, sys\n"
        "from vae_tf import cli\n"
        "found = []\n"
        "for command in sys.argv[1:]:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as err:\n"
        "        found.append([cli.main(['train', *shlex.split(command)]), err.getvalue()])\n"
        "print(json.dumps([found, sorted({'tensorflow', 'keras'} & {*sys.modules})]))",
        *EARLY,
    )
    found, modules = json.loads(printed)
    assert modules == []
    for (status, err), (command, words) in zip(found, EARLY.items(), strict=True):
        assert status == 2, command
        assert words in err, command


# What is handed to `fit`.


def test_the_validation_set_of_a_folder_is_watched(monkeypatch):
    x = blobs(60)
    for part, some in (("train", x[:40]), ("val", x[40:50]), ("test", x[50:])):
        write(f"photos/{part}", some)
    plan = training.prepare(training.TrainConfig(data="photos", early_stopping=3))
    np.testing.assert_array_equal(plan.watched.x_train[..., 0], x[:40])
    np.testing.assert_array_equal(plan.watched.x_test[..., 0], x[40:50])
    np.testing.assert_array_equal(plan.images.x_test[..., 0], x[50:])
    with pytest.raises(ValueError, match=r"'validation'.*comes with images to validate on"):
        training.prepare(training.TrainConfig(data="photos", validation=0.1))
    write("photos/val/more", blobs(1, seed=9))
    assert runs.fingerprint(data.load(data="photos")) != runs.fingerprint(plan.images)


def test_a_gaussian_takes_values_below_0_from_a_file_as_from_an_array(monkeypatch):
    x = np.random.default_rng(0).normal(size=(20, 8, 8)).astype("float32")
    np.savez("bars.npz", x_train=x, x_test=x)
    _, found, _ = handed_to_fit(monkeypatch, "--likelihood gaussian")
    np.testing.assert_array_equal(found[..., 0], x)


def test_colour_is_not_told_to_become_binary(monkeypatch, capsys):
    np.savez("bars.npz", x=np.repeat(blobs(40)[..., None], 3, axis=-1))
    handed_to_fit(monkeypatch, "")
    said = capsys.readouterr().out
    assert "--likelihood gaussian, discretized_logistic or continuous_bernoulli" in said
    assert "--binarize" not in said


def test_one_hot_labels_are_understood(monkeypatch):
    np.savez("bars.npz", x=blobs(40), y=np.eye(4)[np.arange(40) % 4])
    handed_to_fit(monkeypatch, "")
    assert {*data.load(data="bars.npz").y_train} <= {0, 1, 2, 3}


# The data of a run, loaded again.


def described(config):
    return json.loads(json.dumps(runs.describe(training.prepare(config))))


def test_a_run_takes_its_images_again_as_it_took_them():
    rgba = np.concatenate([blobs(12, (9, 12, 3)), np.full((12, 9, 12, 1), 99, np.uint8)], axis=-1)
    write("photos", rgba)
    record = described(training.TrainConfig(data="photos", resize="4x6", background="white"))
    assert record["config"]["resize"] == [4, 6]
    assert training.TrainConfig(**record["config"]).resize == (4, 6)
    images = runs.load_images(record)
    assert images.image_shape == (4, 6, 3)
    assert images.x_train.min() >= 255 - 99
    np.savez("others.npz", x=blobs(4, (20, 20, 3)))
    assert runs.load_like(record, "digits", "others.npz").image_shape == (4, 6, 3)


def test_changed_labels_are_other_data_but_for_runs_that_noted_none():
    y = np.arange(20) % 3
    np.savez("a.npz", x=blobs(20), y=y)
    record = described(training.TrainConfig(data="a.npz"))
    np.savez("a.npz", x=blobs(20), y=np.eye(3)[y])  # the same, said otherwise
    runs.load_images(record)
    for changed in ({"y": y[::-1]}, {}):
        np.savez("a.npz", x=blobs(20), **changed)
        with pytest.raises(ValueError, match="the labels that the run was trained on"):
            runs.load_images(record)
    del record["data"]["labels_sha256"]
    runs.load_images(record)


def test_a_run_of_an_earlier_version_is_loaded_again():
    np.savez("a.npz", x=blobs(20))
    record = described(training.TrainConfig(data="a.npz"))
    for name in ("resize", "background"):
        del record["config"][name]
    assert len(runs.load_images(record).x_train) == 18
    assert training.TrainConfig(**record["config"]).resize is None


def test_a_name_with_control_characters_makes_a_run_that_can_be_written():
    write("a\x1b[31m", blobs(4))
    plan = training.prepare(training.TrainConfig(data="a\x1b[31m"))
    assert str(plan.path) == r"runs/a_x1b[31m_default_z10"
