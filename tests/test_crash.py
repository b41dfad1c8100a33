"""A run that is killed at any moment, or finds the disk full, and is resumed leaves what it would have.

A process that is killed leaves the disk as it is between two file operations, since what is being
written has another name. An audit hook sees each of Python's; a copy of the run there is what a kill at
that moment leaves.
"""

import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from helpers import blobs
from training_helpers import small_vae

from vae_tf import files
from vae_tf.training import TrainConfig, prepare, prepare_resume, runs, train

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES, REMOVALS = ("os.mkdir", "os.rename"), ("os.remove", "os.rmdir")
ADDRESS = rb'"shared_object_id": \d+'
_watchers = []


@sys.addaudithook
def _hook(event, arguments):
    writes = event in CHANGES or (event == "open" and arguments[2] & WRITING)
    if _watchers and (writes or event in REMOVALS):
        _watchers[-1](writes)


@contextlib.contextmanager
def before_each_change(look):
    """Call `look(writes)` before each file operation of this process that writes or removes."""
    busy = []

    def watch(writes):
        if not busy:
            busy.append(True)
            try:
                look(writes)
            finally:
                busy.clear()

    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)


def model():
    """Not compiled by XLA, which takes longer than these trainings."""
    keras.backend.clear_session()  # so that layers have the names that they have in a process of their own
    adam = keras.optimizers.Adam(0.05)
    return small_vae(optimizer=adam, jit_compile=False, steps_per_execution=3)


def save_images(folder):
    np.savez(folder / "x.npz", x_train=blobs(130), x_test=blobs(30, seed=1))


def fresh(folder, **kwargs):
    """Train into `folder/run`: 7 steps an epoch, and a file that stands for the pictures.

    There is a checkpoint at the end of an epoch, in whose last execution there is room for more steps.
    """
    kwargs = {"steps": 18, "batch_size": 20, "checkpoint_every": 7} | kwargs
    config = TrainConfig(data=str(folder / "x.npz"), run=str(folder / "run"), **kwargs)
    return finished(prepare(config))


def finished(plan):
    return finished_with(plan, model())


def finished_with(plan, model):
    """Train, and write a file that stands for the pictures."""

    def draw():
        content = (plan.path / "history.csv").read_bytes()
        files.write_atomically(plan.path / "picture.png", content)

    return train(plan, True, model, draw)


def contents(run):
    """What a run leaves, by file: its bytes, without times and addresses in memory."""
    found = {}
    for path in sorted(run.iterdir()):
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name != "metadata.json"]
                found[path.name] = {n: re.sub(ADDRESS, b"", archive.read(n)) for n in names}
        elif path.name == "config.json":
            found[path.name] = {k: v for k, v in runs.load_record(run).items() if k != "seconds"}
        elif path.is_file() and path.name != files.LOCK:
            found[path.name] = path.read_bytes()
    return found


def whole(run):
    """By name and content the files that are in place."""
    paths = [p for p in sorted(run.rglob("*")) if p.is_file() and files.SCRATCH not in str(p)]
    return tuple((str(path), path.read_bytes()) for path in paths if path.name != files.LOCK)


@contextlib.contextmanager
def kills(run, tmp_path_factory):
    """Copies of a run as each kill at another moment of the block would leave it."""
    copies, seen = [], []

    def copy(_):
        if run.exists() and (now := whole(run)) not in seen:
            seen.append(now)
            copies.append(tmp_path_factory.mktemp("killed") / "run")
            shutil.copytree(run, copies[-1])

    with before_each_change(copy):
        yield copies


EARLY = {"steps": None, "epochs": 30, "early_stopping": 1, "checkpoint_every": 14}


@pytest.fixture(scope="module", params=[{}, EARLY], ids=["steps", "early_stopping"])
def killed(request, tmp_path_factory):
    """What a run leaves, and the disk as each kill at another moment leaves it."""
    folder = tmp_path_factory.mktemp("whole")
    save_images(folder)
    with kills(folder / "run", tmp_path_factory) as copies:
        record = fresh(folder, **request.param)
    if request.param:
        assert record["trained_steps"] < 30 * 7, "it did not stop early"
    return contents(folder / "run"), copies


def check(expected, copies):
    for copy in copies:
        left = sorted(path.name for path in copy.iterdir())
        if runs.load_record(copy)["status"] != "completed":
            finished(prepare_resume(copy))
        found = contents(copy)
        assert found.keys() == expected.keys(), left
        for name in expected:
            assert found[name] == expected[name], (name, left)


@pytest.mark.slow
def test_killed_between_the_last_checkpoint_and_the_word_completed(killed):
    expected, copies = killed
    assert len(copies) >= 8
    check(expected, [copies[-2], copies[-4]])  # while "completed" is written, and before the model


@pytest.mark.slow
def test_killed_at_any_moment(killed):
    check(*killed)


# The disk.


def failing(at, code, count):
    """Let what writes fail with `code`, from the `at`-th on."""

    def look(writes):
        count.append(writes)
        if writes and sum(count) > at:
            raise OSError(code, os.strerror(code), "a scratch name")

    return before_each_change(look)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_names_the_file_and_the_run_goes_on(code, tmp_path):
    changes, expected = [], None
    save_images(tmp_path)
    with before_each_change(changes.append):
        fresh(tmp_path)
    expected = contents(tmp_path / "run")
    for at in (sum(changes) - 1, 1):  # the last leaves nothing
        shutil.rmtree(tmp_path / "run")
        with failing(at, code, []), pytest.raises(OSError, match=os.strerror(code)) as raised:
            fresh(tmp_path)
        assert files.SCRATCH not in str(raised.value)
        assert str(tmp_path / "run") in str(raised.value)
        if at > 1:
            check(expected, [tmp_path / "run"])
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz"}


# One process at a time.


def test_a_run_that_another_process_trains_is_refused_and_the_process_is_named(tmp_path):
    hold = "import sys, vae_tf.files as f\nwith f.locked('.'): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as other:
        assert other.stdout.readline() == "held\n"
        words = f"no other process trains.*process {other.pid} on {re.escape(socket.gethostname())}"
        with pytest.raises(ValueError, match=words), files.locked(tmp_path):
            pass
        assert (tmp_path / files.LOCK).exists()
        other.kill()  # and the lock dies with it
    with files.locked(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} on"):
        files.locked(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        files, "_take", lambda file: (_ for _ in ()).throw(OSError(95, "not supported"))
    )
    with (
        pytest.warns(UserWarning, match=r"cannot be locked.*not supported"),
        files.locked(tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_second_process_does_not_harm_a_run_that_is_trained(tmp_path):
    save_images(tmp_path)
    fresh(tmp_path)
    run = tmp_path / "run"
    runs.write_record(run, runs.load_record(run) | {"status": "training"})
    before = contents(run)
    with files.locked(run), pytest.raises(ValueError, match="no other process"):
        finished(prepare_resume(run))
    assert contents(run) == before
