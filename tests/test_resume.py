"""Training that was killed and resumed is the training that was never interrupted."""

import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from helpers import blobs
from training_helpers import Crash, assert_same_state, small_vae

import vae_tf
from vae_tf import Checkpoints, KLWarmup, StepHistory
from vae_tf.engine import checkpoints
from vae_tf.engine.callbacks import Interruption

pytestmark = pytest.mark.xla


def make(**kwargs):
    """Adam with a rate that falls, so that the number of the step matters."""
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 60)
    return small_vae(optimizer=keras.optimizers.Adam(rate), **kwargs)


def fit(directory, stop_after=None, x=None, epochs=4, every_steps=3, extra=(), save=None, **kwargs):
    """11 steps an epoch, the last on a smaller batch; executions of 3 steps."""
    vae, history = make(steps_per_execution=3, **kwargs), StepHistory()
    kept = Checkpoints(directory, every_steps)
    hooks = [KLWarmup(20), history, kept, *extra]
    if save is not None:
        save.save = kept.save
    if stop_after is not None:
        hooks.append(Crash(stop_after))
    x = blobs(105) if x is None else x
    result = vae.fit(
        x, batch_size=10, epochs=epochs, verbose=0, callbacks=hooks, validation_data=x[:20]
    )
    return vae, history, result


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crash", "every_steps"),
    # 11: at the end of an epoch
    [([11, 25], 1), ([6, 30], 7)],
)
def test_interrupted_and_resumed_is_uninterrupted(uninterrupted, crash, every_steps, tmp_path):
    for step in crash:
        with pytest.raises(RuntimeError, match="crash"):
            fit(tmp_path, stop_after=step, every_steps=every_steps)
    vae, history, result = fit(tmp_path, every_steps=every_steps)
    expected_vae, expected_history, expected_result = uninterrupted
    assert_same_state(vae, expected_vae)
    assert history.rows == expected_history.rows
    assert result.history == expected_result.history
    assert result.epoch == expected_result.epoch


@pytest.mark.parametrize("crash", [30, 43])
@pytest.mark.slow
def test_the_best_weights_that_early_stopping_keeps_come_back(crash, tmp_path):
    """The loss rises on random images to which nothing is held out: the best weights are early ones."""

    def train(folder, *hooks):
        vae = small_vae(optimizer=keras.optimizers.Adam(0.5), jit_compile=False)
        stop = keras.callbacks.EarlyStopping(
            "loss", patience=2, mode="max", restore_best_weights=True
        )
        hooks = [stop, Checkpoints(tmp_path / folder, 5), *hooks]
        result = vae.fit(blobs(105), batch_size=10, epochs=9, verbose=0, callbacks=hooks)
        return vae, result

    whole, expected = train("whole")
    assert len(expected.epoch) == 3  # it fell from the first on
    with pytest.raises(RuntimeError, match="crash"):
        train("crashed", Crash(crash - 11))
    for _ in range(2):  # and again, when nothing is left to do
        resumed, result = train("crashed")
        assert_same_state(whole, resumed)
        assert (result.history, result.epoch) == (expected.history, expected.epoch)


def test_a_finished_training_is_not_repeated_and_more_epochs_are_another_call(tmp_path):
    vae, history, result = fit(tmp_path, jit_compile=False)
    again, rows, given = fit(tmp_path, jit_compile=False)
    assert rows.rows == history.rows
    assert (given.history, given.epoch) == (result.history, result.epoch)
    assert again.optimizer.iterations == vae.optimizer.iterations == 44
    assert_same_state(again, vae)
    with pytest.raises(ValueError, match=r"another call.*'epochs': 4.*'epochs': 5"):
        fit(tmp_path, epochs=5, jit_compile=False)


@pytest.mark.slow
def test_the_last_few_are_kept(tmp_path):
    fit(tmp_path, jit_compile=False)
    names = [path.name for path in checkpoints.checkpoint_paths(tmp_path)]
    assert len(names) == 3
    assert names[0] == "step_0000000044.ckpt"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_known_by_its_checksum(damage, tmp_path):
    path = tmp_path / "step_0000000001.ckpt"
    checkpoints.write(path, {"step": 1}, [np.arange(1000.0)])
    state, arrays = checkpoints.read(path)
    assert state == {"step": 1}
    np.testing.assert_array_equal(arrays[0], np.arange(1000.0))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    with pytest.raises(ValueError, match="checksum"):
        checkpoints.read(path)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path):
    whole, _, _ = fit(tmp_path / "whole", jit_compile=False)
    with pytest.raises(RuntimeError):
        fit(tmp_path / "crashed", stop_after=30, jit_compile=False)
    newest = checkpoints.checkpoint_paths(tmp_path / "crashed")[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        vae, _, _ = fit(tmp_path / "crashed", jit_compile=False)
    assert_same_state(vae, whole)


@pytest.mark.slow
def test_checkpoints_of_another_model_are_refused(tmp_path):
    fit(tmp_path, epochs=1, jit_compile=False)
    other = small_vae(latent_dim=3)
    with pytest.raises(ValueError, match="another model"):
        other.fit(blobs(), verbose=0, callbacks=[Checkpoints(tmp_path)])
    with pytest.raises(ValueError, match="another call"):
        fit(tmp_path, x=blobs(55), epochs=9, jit_compile=False)


@pytest.mark.slow
def test_a_full_disk_says_so_and_the_last_good_checkpoint_loads(tmp_path, uninterrupted):
    """A file size limit stands in for a full disk: the write fails half way."""
    import resource

    with pytest.raises(RuntimeError):
        fit(tmp_path, stop_after=12)
    before = checkpoints.checkpoint_paths(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before[0].stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(checkpoints.CheckpointError, match=before[0].name):
            fit(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert checkpoints.checkpoint_paths(tmp_path) == before
    assert sorted(tmp_path.iterdir()) == sorted(before)
    vae, _, _ = fit(tmp_path)
    assert_same_state(vae, uninterrupted[0])


@pytest.mark.slow
def test_training_on_draws_of_the_pixels_goes_on_bit_for_bit(tmp_path):
    def fit(folder, *hooks):
        model = small_vae(
            optimizer=keras.optimizers.SGD(2**-7), binarize=True, steps_per_execution=1
        )
        hooks = [Checkpoints(tmp_path / folder, every_steps=1), *hooks]
        model.fit(blobs(30), batch_size=10, epochs=3, verbose=0, callbacks=hooks)
        return model

    whole = fit("whole")
    with pytest.raises(RuntimeError, match="crash"):
        fit("crashed", Crash(5))
    resumed = fit("crashed")
    assert_same_state(whole, resumed)
    assert resumed.optimizer.iterations == 9


def test_a_saved_model_keeps_the_state_of_its_noise(tmp_path):
    x, vae = blobs(), make(jit_compile=False)
    vae.fit(x, epochs=2, verbose=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.models.load_model(tmp_path / "vae.keras")
    assert loaded.sampling.seed_generator.state[1] == 2
    for model in (vae, loaded):
        model.fit(x, epochs=2, verbose=0)
    assert_same_state(vae, loaded)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["on_train_batch_end", "on_test_batch_end"])
def test_ctrl_c_leaves_a_checkpoint_from_which_training_goes_on(uninterrupted, moment, tmp_path):
    """At the 14th step, or in the evaluation after the 11th, which takes the running means for its own."""
    interruption = Interruption(begun=True)
    ask = keras.callbacks.Callback()

    def ask_late(*_, **__):
        interruption.asked = ask.model.steps_made >= (14 if moment == "on_train_batch_end" else 11)

    setattr(ask, moment, ask_late)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, every_steps=1000, extra=(ask, interruption), save=interruption)
    state, _ = checkpoints.load_newest(tmp_path)
    assert (state["step"], state["epoch"]) == ((14, 1) if ask.model.steps_made > 11 else (11, 0))
    vae, history, result = fit(tmp_path, every_steps=1000)
    expected_vae, expected_history, expected_result = uninterrupted
    assert_same_state(vae, expected_vae)
    assert history.rows == expected_history.rows
    assert result.history == expected_result.history


TRAIN = "import sys; from vae_tf.cli import main; sys.exit(main(sys.argv[1:]))"


def command(*args, cwd):
    return [sys.executable, "-c", TRAIN, *map(str, args)], {"cwd": cwd, "stderr": subprocess.PIPE}


def kill_after(process, directory, delay):
    """SIGKILL `delay` seconds after the first checkpoint is there."""
    deadline = time.monotonic() + 90
    while not checkpoints.checkpoint_paths(directory) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_sigkill_at_random_moments_and_resume(tmp_path):
    """The command, killed at moments that fall into steps and into writes alike."""
    np.savez(tmp_path / "x.npz", x_train=blobs(500), x_test=blobs(30, seed=1))
    options = (
        "--data",
        "x.npz",
        "--hidden-units",
        "64",
        "--steps",
        "700",
        "--batch-size",
        "50",
        "--checkpoint-every",
        "20",
    )
    arguments, kwargs = command("train", *options, "--run", "whole", cwd=tmp_path)
    subprocess.run(arguments, check=True, **kwargs)
    delays, killed = np.random.default_rng().uniform(0, 0.5, 4), 0
    arguments, kwargs = command("train", *options, "--run", "killed", cwd=tmp_path)
    directory = tmp_path / "killed" / "checkpoints"
    for delay in delays:
        process = subprocess.Popen(arguments, **kwargs)
        kill_after(process, directory, delay)
        killed += process.returncode == -signal.SIGKILL
        arguments, kwargs = command("train", "--resume", "killed", cwd=tmp_path)
    assert killed >= 1, "every process ended before it was killed"
    subprocess.run(arguments, check=True, **kwargs)
    whole, resumed = (vae_tf.load_run(tmp_path / name)[1] for name in ("whole", "killed"))
    print(f"delays {delays}")
    assert_same_state(whole, resumed)
    histories = [(tmp_path / name / "history.csv").read_bytes() for name in ("whole", "killed")]
    assert histories[0] == histories[1]
    assert not list(pathlib.Path(directory).glob(".*"))
