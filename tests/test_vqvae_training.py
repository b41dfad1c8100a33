"""The two phases of a VQVAE's training, in a run and in Python; each goes on where it was interrupted."""

import keras
import numpy as np
import pytest
from helpers import blobs
from test_crash import contents, finished_with, kills

from vae_tf import VQVAE, CodePrior, StepHistory
from vae_tf.autoregressive import log_prob
from vae_tf.cli import main
from vae_tf.engine import checkpoints
from vae_tf.errors import OldPriorWarning
from vae_tf.training import (
    TrainConfig,
    load_history,
    load_run,
    prepare,
    prepare_resume,
    runs,
    train,
)

PRIOR = {"prior_steps": 8, "prior_filters": 8, "prior_layers": 2}
EARLY = {
    "steps": None,
    "epochs": 12,
    "early_stopping": 1,
    "prior_steps": 42,
    "checkpoint_every": 14,
}


def config(folder, **kwargs):
    """7 steps an epoch; 9 steps of the model, 8 of its prior."""
    np.savez(folder / "x.npz", x_train=blobs(130) > 100, x_test=blobs(30, seed=1) > 100)
    kwargs = {
        "steps": 9,
        "batch_size": 20,
        "checkpoint_every": 2,
        "model": "vqvae",
        "data": str(folder / "x.npz"),
        "run": str(folder / "run"),
        **PRIOR,
        **kwargs,
    }
    return TrainConfig(**kwargs)


def model():
    """Three steps an execution, so that one ends within an epoch."""
    keras.backend.clear_session()
    vqvae = VQVAE(8, 4, filters=(8,), seed=0)
    vqvae.compile(keras.optimizers.Adam(0.01), steps_per_execution=3)
    return vqvae


def fresh(folder, **kwargs):
    return finished_with(prepare(config(folder, **kwargs)), model())


def resumed(run):
    return finished_with(prepare_resume(run), model())


@pytest.fixture(
    scope="module", params=[{}, pytest.param(EARLY, marks=pytest.mark.slow)], ids=["steps", "early"]
)
def killed(request, tmp_path_factory):
    """What a run records and leaves, and the disk as each kill at another moment leaves it."""
    folder = tmp_path_factory.mktemp("whole")
    with kills(folder / "run", tmp_path_factory) as copies:
        record = fresh(folder, **request.param)
    return record, folder / "run", [(phase_of(copy), copy) for copy in copies]


def both(run):
    """What a run leaves, the second phase's part too."""
    found = contents(run) | {f"prior/{k}": v for k, v in contents(run / "prior").items()}
    found["config.json"]["prior"].pop("seconds")
    return found


def phase_of(copy):
    """Where a run was killed: in which phase, between them, or while finishing."""
    if (copy / "prior" / "history.csv").exists():
        return "finishing"
    if checkpoints.checkpoint_paths(copy / "prior" / "checkpoints"):
        return "prior"
    return "between" if (copy / "model.keras").exists() else "model"


@pytest.mark.slow
def test_a_run_holds_both_phases(killed):
    record, run, _ = killed
    assert record["status"] == "completed"
    loaded, vqvae = load_run(run)
    assert loaded == {k: v for k, v in record.items() if k != "path"}
    x = runs.load_images(loaded).x_test
    codes = vqvae.codes(x)
    nats = -np.mean(log_prob(vqvae.code_prior, codes))
    found = record["prior"]
    assert found["test"]["loss"] == pytest.approx(nats, rel=1e-5)
    assert found["test"]["bits_per_code"] == pytest.approx(nats / np.log(2) / 16, rel=1e-5)
    assert vqvae.steps_made == record.get("best_step", record["trained_steps"])
    if "best_step" not in record:
        assert (record["trained_steps"], found["trained_steps"]) == (9, 8)
        assert found["steps"] == 8
    history = load_history(run / "prior")
    assert history["step"][-1] == found["trained_steps"]
    assert history["loss"][-1] < history["loss"][0] == pytest.approx(16 * np.log(8), rel=1e-5)
    assert "bits_per_code" in history
    assert "commitment_loss" in load_history(run)
    assert vqvae.generate(2, seed=0).shape == (2, 8, 8, 1)


@pytest.mark.slow
def test_the_second_phase_leaves_the_model_as_it_is(killed):
    record, run, _ = killed
    _, vqvae = load_run(run)
    if "best_step" in record:
        first = keras.models.load_model(run / "best.keras").get_weights()
        vqvae.adopt(None)
        found = vqvae.get_weights()
    else:
        state, first = checkpoints.load_newest(run / "checkpoints")
        vqvae.adopt(None)
        first, found = first[: state["variables"]], [v.numpy() for v in vqvae.variables]
    for one, other in zip(first, found, strict=False):
        np.testing.assert_array_equal(one, other)


def check(run, copies):
    expected = both(run)
    for copy in copies:
        left = sorted(path.name for path in copy.rglob("*"))
        if runs.load_record(copy)["status"] != "completed":
            assert resumed(copy)["status"] == "completed"
        found = both(copy)
        assert found.keys() == expected.keys(), left
        for name in expected:
            assert found[name] == expected[name], (name, left)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["model", "between", "prior", "finishing"])
def test_killed_in_each_phase_and_resumed_is_uninterrupted(phase, killed):
    _, run, copies = killed
    chosen = [copy for found, copy in copies if found == phase]
    check(run, [chosen[len(chosen) // 2]])


@pytest.mark.slow
def test_killed_at_any_moment(killed):
    _, run, copies = killed
    assert {phase for phase, _ in copies} == {"model", "between", "prior", "finishing"}
    check(run, [copy for _, copy in copies])


def interrupting(monkeypatch, error, at=7):
    """Raise after an execution of the second phase: there are seven steps in one."""
    original = StepHistory.on_steps_end

    def look(self, steps):
        original(self, steps)
        if isinstance(self.model, CodePrior) and steps.last >= at:
            raise error

    monkeypatch.setattr(StepHistory, "on_steps_end", look)


@pytest.mark.slow
def test_ctrl_c_in_the_second_phase_saves_what_there_is(killed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupting(patch, KeyboardInterrupt)
        record = fresh(tmp_path)
    status = record["status"]
    assert status.startswith("interrupted after 7 of 8 steps of the prior, at once: its last")
    loaded, vqvae = load_run(tmp_path / "run")
    assert loaded["status"] == status
    assert loaded["prior"]["trained_steps"] == 7
    assert "test" in loaded
    assert "test" not in loaded["prior"]
    vqvae.generate(1, seed=0)
    assert load_history(tmp_path / "run" / "prior")["step"][-1] == 7
    assert resumed(tmp_path / "run")["status"] == "completed"
    if "best_step" not in killed[0]:
        expected, found = both(killed[1]), both(tmp_path / "run")
        assert found.keys() == expected.keys()
        assert all(found[name] == expected[name] for name in found if name != "config.json")


@pytest.mark.slow
def test_a_prior_that_diverges_leaves_the_model_and_names_its_own_checkpoint(tmp_path, monkeypatch):
    interrupting(monkeypatch, FloatingPointError("At step 8, loss is nan."), at=8)
    with pytest.raises(FloatingPointError):
        fresh(tmp_path)
    record, vqvae = load_run(tmp_path / "run")
    assert record["status"] == "diverged: At step 8, loss is nan."
    assert vqvae.sample_prior is None
    assert (
        runs.last_checkpoint(tmp_path / "run").parent == tmp_path / "run" / "prior" / "checkpoints"
    )
    with pytest.raises(TypeError, match=r"a VQVAE with a prior.*CodePrior\(vqvae\)"):
        vqvae.generate(1)


@pytest.mark.slow
def test_the_options_of_the_prior_go_to_a_model_of_ones_own(tmp_path):
    asked = config(tmp_path, prior_steps=3, prior_filters=5, steps=3)
    vqvae = model()
    record = train(asked, progress=False, model=vqvae)
    assert record["prior"]["trained_steps"] == 3
    prior = CodePrior(vqvae)
    assert (prior.filters, prior.num_layers) == (5, 2)
    asked = config(tmp_path, num_embeddings=4, run=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"'num_embeddings'.*VQVAE does not take this"):
        train(asked, model=model())
    assert not (tmp_path / "other").exists()


def test_what_is_wrong_with_the_prior_is_told_before_the_model_is_trained(tmp_path, capsys):
    config(tmp_path)
    words = f"train --model vqvae --data {tmp_path}/x.npz --run {tmp_path}/run --steps 1"
    for more, named in (
        ("--prior-filters 10000000", "10000000"),
        ("--prior-layers 0", "prior_layers"),
        ("--prior-steps 0", "prior_steps"),
        ("--filters 8,8,8,8", "16 divides"),
    ):
        assert main([*words.split(), *more.split()]) == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# In Python.


@pytest.fixture(scope="module")
def trained():
    vqvae = model()
    vqvae.fit(blobs(100) > 100, epochs=2, batch_size=20, verbose=0)
    prior = CodePrior(vqvae, filters=8, num_layers=2, seed=0)
    prior.compile(keras.optimizers.Adam(0.01), steps_per_execution=2)
    return vqvae, prior


def test_fit_of_the_prior_gives_the_model_its_draws(trained, tmp_path):
    vqvae, prior = trained
    x, before = blobs(60) > 100, [weight.numpy() for weight in vqvae.weights]
    assert vqvae.sample_prior is None
    history = prior.fit(x, epochs=6, batch_size=20, verbose=0, validation_data=x[:20]).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert all((a == b.numpy()).all() for a, b in zip(before, vqvae.weights, strict=False))
    images = vqvae.generate(20, seed=3)
    vqvae.save(tmp_path / "vqvae.keras")
    prior.save(tmp_path / "prior.keras")
    loaded = keras.models.load_model(tmp_path / "vqvae.keras")
    np.testing.assert_array_equal(loaded.generate(20, seed=3), images)
    again = keras.models.load_model(tmp_path / "prior.keras")
    assert again.evaluate(x, verbose=0) == prior.evaluate(x, verbose=0)
    assert again.steps_made == prior.steps_made
    np.testing.assert_array_equal(again.vqvae.generate(20, seed=3), images)
    with pytest.warns(OldPriorWarning, match=r"train the prior on: prior = vae_tf\.CodePrior"):
        loaded.fit(x, batch_size=20, verbose=0)
    with pytest.raises(ValueError, match=r"'filters'.*expected 8.*adopt\(None\)"):
        CodePrior(loaded, filters=9)
    loaded.adopt(None)
    assert len(loaded.variables) < len(vqvae.variables)


def test_a_prior_of_a_model_that_was_never_trained_is_refused():
    with pytest.raises(ValueError, match=r"has not seen an image.*`CodePrior`"):
        CodePrior(VQVAE(8, 4))
    with pytest.raises(TypeError, match=r"'vqvae'.*a VQVAE"):
        CodePrior(keras.Sequential())
