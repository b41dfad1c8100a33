"""A run that a stranger made: nothing of it is run, and what cannot be used is named."""

import copy
import hashlib
import io
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
from helpers import blobs
from training_helpers import small_vae

from vae_tf import Checkpoints, StepHistory, cli, training
from vae_tf.engine import checkpoints
from vae_tf.errors import InvalidValueError
from vae_tf.training import runs

# Checkpoints.


def fit(directory):
    hooks = [StepHistory(), Checkpoints(directory, 3)]
    small_vae(jit_compile=False).fit(blobs(40), batch_size=10, verbose=0, callbacks=hooks)


def craft(path, change):
    """Write a checkpoint anew whose checksum is right and whose state or arrays are not."""
    state, arrays = checkpoints.read(path)
    state, arrays = change(state, arrays) or (state, arrays)
    checkpoints.write(path, state, arrays)


def set_attribute(name, value):
    def change(state, arrays):
        for _, kept in state["callbacks"]:
            kept[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, arrays: (state, [array.astype(str) for array in arrays]), "another model"),
        (lambda state, arrays: (state, arrays[:3]), "another model"),
        (lambda state, arrays: (state, [np.zeros(2**20), *arrays[1:]]), "another model"),
        (set_attribute("on_epoch_end", 5), "do not fit this .*'on_epoch_end'"),
        (set_attribute("rows", 5), "do not fit this .*'rows'"),
        (set_attribute("model", {}), "do not fit this .*'model'"),
        (set_attribute("filepath", "elsewhere"), "do not fit this .*'filepath'"),
    ],
)
def test_a_crafted_checkpoint_sets_nothing_that_it_should_not(change, words, crafted):
    """A path of a callback's or a function of it, for example."""
    craft(crafted, change)
    with pytest.raises(ValueError, match=words):
        fit(crafted.parent)


@pytest.fixture
def crafted(one_epoch, tmp_path):
    return pathlib.Path(shutil.copy(one_epoch, tmp_path))


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_epoch")
    fit(folder)
    return checkpoints.checkpoint_paths(folder)[0]


def pickled(payload):
    """NumPy would run what is pickled in an array of objects, were it allowed to."""

    class Run:
        def __reduce__(self):
            return (os.mkdir, (str(payload),))

    return np.array([Run()], dtype=object)


def test_no_code_in_a_checkpoint_runs(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, state=pickled(tmp_path / "ran"))
    content = buffer.getvalue()
    path = tmp_path / "step_0000000001.ckpt"
    path.write_bytes(checkpoints.MAGIC + hashlib.sha256(content).digest() + content)
    with pytest.warns(UserWarning, match="is damaged .*allow_pickle"):
        assert checkpoints.load_newest(tmp_path) is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "state",
    [[], 5, {}, {"step": -1}, {"step": 1, "epoch": "0"}, {"callbacks": 5}],
)
def test_a_state_that_is_none_is_named(state, tmp_path):
    checkpoints.write(tmp_path / "step_0000000001.ckpt", state, [np.zeros(3)])
    with pytest.warns(UserWarning, match="is damaged"):
        assert checkpoints.load_newest(tmp_path) is None


def test_a_compressed_bomb_is_not_unpacked(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, state=np.zeros(10**8, np.uint8))
    content = buffer.getvalue()
    assert len(content) < 10**6
    path = tmp_path / "step_0000000001.ckpt"
    path.write_bytes(checkpoints.MAGIC + hashlib.sha256(content).digest() + content)
    with pytest.warns(UserWarning, match="it is compressed"):
        assert checkpoints.load_newest(tmp_path) is None


# `config.json`.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    np.savez(folder / "x.npz", x_train=blobs(40), x_test=blobs(10, seed=1))
    config = training.TrainConfig(
        data=str(folder / "x.npz"),
        hidden_units=(4,),
        latent_dim=2,
        steps=3,
        run=str(folder / "run"),
    )
    training.train(config, progress=False)
    return folder / "run"


def test_what_shows_only_in_use_names_the_checkpoints(run, tmp_path):
    left = pathlib.Path(shutil.copytree(run, tmp_path / "run"))
    (left / "model.keras").unlink()  # so that there is something left to do
    craft(checkpoints.checkpoint_paths(left / "checkpoints")[0], set_attribute("rows", [5]))
    with pytest.raises(InvalidValueError, match=r"resume.*ends with .*Error.*Move the newest of"):
        training.train(training.prepare_resume(left), progress=False)


def parts(value, path=()):
    """The path of each part of what JSON gave."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from parts(inner, (*path, name))


def damaged(record, path, value):
    """The record with one part replaced, or left out where `value` is Ellipsis."""
    if not path:
        return value
    record = inner = copy.deepcopy(record)
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return record


def test_each_part_of_another_type_is_named_and_nothing_else_happens(run, tmp_path):
    record, refusals = json.loads((run / "config.json").read_text()), []
    values = (None, 5, -1, 2.5, True, "", "x", [], {}, [None], {"a": []}, float("nan"), ...)
    for path in parts(record):
        for value in values[: None if path else -1]:
            (tmp_path / "config.json").write_text(json.dumps(damaged(record, path, value)))
            try:
                runs.load_record(tmp_path)
            except ValueError as error:
                refusals.append((str(error), path[-1] if path else ""))
    assert all("config.json" in message and name in message for message, name in refusals)
    assert len(refusals) > 8 * len(list(parts(record)))  # of 13: one type or two are right


@pytest.mark.parametrize("text", ["[" * 100_000, "\ud800", "nul", "[]"])
def test_a_text_that_is_no_record_is_refused_with_status_2(text, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    for command in ("plot", "export"):
        assert cli.main([command, str(tmp_path)]) == 2
        assert "config.json" in capsys.readouterr().err


# `model.keras`.


@pytest.mark.parametrize("kind", ["foreign", "another_shape", "bomb"])
def test_a_model_that_is_not_the_runs_is_named(kind, run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    if kind == "foreign":
        keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]).save(
            path / "model.keras"
        )
    elif kind == "another_shape":
        other = small_vae()
        other.build((None, 4, 4, 1))
        other.save(path / "model.keras")
    else:
        (path / "model.keras").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(ValueError, match=r"'run'.*model\.keras"):
        runs.load_run(path)
