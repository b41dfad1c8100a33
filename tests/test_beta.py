"""The β-VAE: a constant β, and the capacity form."""

import keras
import numpy as np
import pytest
from helpers import blobs
from training_helpers import assert_same_state, small_vae

from vae_tf import IWAE, VAE, BetaVAE, FreeBits, HierarchicalVAE, KLWarmup, StepHistory

X = blobs(60) > 100
MEANS = {"loss": 90.0, "reconstruction_loss": 80.0, "kl_loss": 10.0}
MEANS["kl_per_dimension"] = np.array([9.5, 0.5], "float32")


def trained(model_class=VAE, hooks=(), epochs=2, **kwargs):
    model, record = small_vae(model_class, jit_compile=False, **kwargs), StepHistory()
    hooks = [record, *hooks]
    model.fit(X, batch_size=20, epochs=epochs, verbose=0, callbacks=hooks)
    return model, record.columns()


def objective(free_bits=0.0, steps=0, **kwargs):
    """Of `MEANS`, when so many steps were made."""
    model = small_vae(BetaVAE, **kwargs)
    model.optimizer.iterations.assign(steps)
    model.free_bits.assign(free_bits)
    return float(model.objective(MEANS))


def test_both_forms_of_the_objective_by_hand():
    assert objective() == 80 + 4 * 10
    assert objective(beta=0.5) == 80 + 0.5 * 10
    assert objective(beta=2, free_bits=1) == 80 + 2 * (9.5 + 1)
    form = {"gamma": 7, "capacity_steps": 10}
    assert objective(capacity=4, steps=99, **form) == 80 + 7 * (10 - 4)
    assert objective(capacity=25, steps=99, **form) == 80 + 7 * (25 - 10)
    assert objective(capacity=20, steps=1, **form) == 80 + 7 * (10 - 2 / 10 * 20)
    assert objective(capacity=4, steps=99, free_bits=1, **form) == 80 + 7 * (9.5 + 1 - 4)


def test_the_capacity_rises_in_a_line_and_is_recorded():
    model, columns = trained(BetaVAE, epochs=3, capacity=6.0, capacity_steps=6)
    np.testing.assert_allclose(columns["capacity"], [1, 2, 3, 4, 5, 6, 6, 6, 6], rtol=1e-6)
    assert "beta" not in columns
    assert float(model.capacity_now) == 6


def test_the_kl_is_held_at_the_capacity():
    options = {"capacity": 2.0, "capacity_steps": 1, "optimizer": keras.optimizers.Adam(1e-2)}
    _, columns = trained(BetaVAE, epochs=60, gamma=100.0, **options)
    assert np.mean(columns["kl_loss"][-10:]) == pytest.approx(2, abs=0.2)


def test_beta_of_one_is_the_vae():
    one, first = trained(VAE)
    other, second = trained(BetaVAE, beta=1.0)
    assert_same_state(one, other)
    for name, column in first.items():
        np.testing.assert_array_equal(column, second[name], err_msg=name)


@pytest.mark.parametrize("options", [{"beta": 3.0}, {"capacity": 5.0, "capacity_steps": 9}])
def test_saved_and_loaded_it_goes_on_with_its_own(options, tmp_path):
    model, _ = trained(BetaVAE, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.objective(MEANS)) == float(model.objective(MEANS))
    assert loaded.get_config() == model.get_config()
    model.fit(X, verbose=0)
    loaded.fit(X, verbose=0)
    assert_same_state(model, loaded)


# What sets the schedule from outside.


def begun(hook, model):
    """A model when a callback has had its word at the beginning of training."""
    hook.set_model(model)
    hook.on_train_begin()
    return model


@pytest.mark.parametrize(
    ("given", "end"), [({}, 3.0), ({"beta": None}, 3.0), ({"beta": 1.0}, 1.0), ({"beta": 0.0}, 0.0)]
)
def test_a_warm_up_leaves_the_models_own_beta_unless_it_is_told(given, end):
    model = begun(KLWarmup(4, **given), small_vae(BetaVAE, beta=3.0))
    assert float(model.beta) == end / 4
    model.optimizer.iterations.assign(9)
    assert float(model.beta) == end


def test_what_a_model_has_no_number_for_is_refused():
    with pytest.raises(
        TypeError, match=r"a model with `beta`, for KLWarmup\. .*BetaVAE that has none"
    ):
        begun(KLWarmup(3), small_vae(BetaVAE, capacity=5.0))
    with pytest.raises(
        TypeError, match=r"`free_bits`, for FreeBits\. .*a HierarchicalVAE that has"
    ):
        begun(FreeBits(0.1), HierarchicalVAE((4, 2), (8,)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 2.0, "capacity": 5.0}, "'capacity': expected either beta or capacity"),
        ({"beta": -1.0}, "'beta'"),
        ({"beta": float("nan")}, "'beta'"),
        ({"capacity": -1.0}, "'capacity'"),
        ({"capacity": 5.0, "gamma": -1.0}, "'gamma'"),
        ({"capacity": 5.0, "capacity_steps": 0}, "'capacity_steps': expected a positive integer"),
        ({"gamma": 10.0}, "'gamma': expected a capacity with it"),
        ({"capacity_steps": 10}, "'capacity_steps': expected a capacity"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        BetaVAE(2, **given)


def test_the_others_have_no_beta_to_be_given():
    for model_class in (VAE, IWAE):
        with pytest.raises((TypeError, ValueError), match="beta"):
            model_class(2, beta=4.0)
