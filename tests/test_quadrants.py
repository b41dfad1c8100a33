"""Images in parts: quadrants that are given, the rest that a model predicts, and the pictures of both."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs

from vae_tf import Condition, ConditionalVAE, Images, TrainConfig, data, load_run, plots, train
from vae_tf.errors import InvalidValueError
from vae_tf.training import runs

WHOLE = np.arange(2 * 16, dtype="uint8").reshape(2, 4, 4, 1)
BELOW_LEFT, LEFT = [8, 9, 12, 13], [0, 1, 4, 5, 8, 9, 12, 13]


@pytest.mark.parametrize(
    ("num", "given"), [(1, BELOW_LEFT), (2, LEFT), (3, [*range(8), *BELOW_LEFT])]
)
def test_quadrants_are_given_in_the_order_of_pyros_example(num, given):
    parts = data.with_quadrants(Images("squares", WHOLE, WHOLE), num)
    rest = sorted(set(range(16)) - set(given))
    np.testing.assert_array_equal(parts.x_test[0], rest)
    np.testing.assert_allclose(parts.y_test[0], np.sort(given) / 255, rtol=1e-6)
    whole = parts.joined(parts.x_train, parts.y_train)
    np.testing.assert_allclose(whole, WHOLE / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("num", "shape"), [(4, (4, 4, 1)), (0, (4, 4, 1)), (1, (1, 4, 1)), (1, (9,))]
)
def test_what_has_no_such_quadrants_is_refused(num, shape):
    x = np.zeros((3, *shape), "uint8")
    with pytest.raises(InvalidValueError, match=r"'(quadrants|data)'"):
        data.with_quadrants(Images("others", x, x), num)


@pytest.mark.parametrize("binarize", ["none", "fixed"])
def test_a_run_on_quadrants_has_its_parts_again(tmp_path, binarize):
    options = {"hidden_units": (8,), "steps": 2, "binarize": binarize, "run": str(tmp_path / "run")}
    train(TrainConfig(model="conditionalvae", quadrants=2, **options), progress=False)
    record, model = load_run(tmp_path / "run")
    assert model.condition == Condition("given", (32,), "float32")
    assert model.learned_prior
    images, whole = runs.load_images(record), data.load("digits")  # the fingerprints agree
    if binarize == "fixed":
        whole = data.binarize(whole)
    np.testing.assert_array_equal(
        images.joined(images.x_test, images.y_test), model.to_floats(tf.constant(whole.x_test))
    )
    assert "test" in record


def test_completions_keep_what_is_given_and_differ_in_the_rest():
    whole = blobs(12, (8, 8))[..., None]
    parts = data.with_quadrants(Images("blobs", whole, whole), 2)
    condition = Condition("given", (32,), "float32")
    model = ConditionalVAE(2, (), condition=condition, learned_prior=True, seed=0)
    model.build((None, 32))
    model.decoder.set_weights([5 * w for w in model.decoder.get_weights()])
    figures = plots.figures(model, parts.x_test, parts.y_test, parts=parts)
    assert {"reconstruct", "completions"} <= figures.keys()
    assert "generated" not in figures
    grid = np.asarray(figures["completions"].axes[0].images[0].get_array())
    band = [grid[9 * row : 9 * row + 8, :8] for row in range(7)]  # of the first image
    assert (band[0][:, 4:] == 0.5).all()
    np.testing.assert_allclose(band[1][..., 0], whole[0, ..., 0] / 255, atol=1e-6)
    for row in (0, 2, 6):
        np.testing.assert_allclose(band[row][:, :4, 0], 0.7 * band[1][:, :4, 0] + 0.03, atol=1e-6)
    assert (band[2][:, 4:] != band[3][:, 4:]).any()
