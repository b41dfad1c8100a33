"""MIG, SAP and DCI against values worked out by hand, and their part of the report."""

import itertools
import math

import numpy as np
import pytest
from linear_models import linear_vae
from small_models import Autoencoder

from vae_tf import Images, evaluation, plots
from vae_tf.errors import InvalidValueError
from vae_tf.evaluation import dci, mig, mutual_information, sap
from vae_tf.evaluation.disentanglement import concentration

# Every pair of two bits, and every pair of a number below 4 and one below 5, equally often.
BITS = np.array(list(itertools.product(range(2), range(2))) * 100)
GRID = np.array(list(itertools.product(range(4), range(5))) * 20)
A, B = BITS.T


def code(*dimensions):
    return np.stack(dimensions, axis=1).astype(float)


def test_a_dimension_for_each_factor_is_the_best_in_all():
    codes = code(-3 * GRID[:, 1], np.zeros(len(GRID)), GRID[:, 0] ** 2)  # in another order, curved
    assert mig(codes, GRID) == pytest.approx(1)
    assert sap(code(-3 * GRID[:, 1], GRID[:, 0], np.zeros(len(GRID))), GRID) == pytest.approx(1)
    found = dci(codes, GRID)
    assert found.disentanglement == pytest.approx(1)
    assert found.completeness == pytest.approx(1)
    assert found.informativeness == pytest.approx(1)
    np.testing.assert_allclose(found.importances, [[0, 1], [0, 0], [1, 0]], atol=1e-12)


def test_a_code_that_is_there_twice_has_no_gap_and_is_half_complete():
    codes = np.hstack([GRID, GRID]).astype(float)
    assert mig(codes, GRID) == pytest.approx(0)
    assert sap(codes, GRID, categorical=(0,)) == pytest.approx(0)
    found = dci(codes, GRID)
    assert found.disentanglement == pytest.approx(1)
    # two of four dimensions share each factor: 1 − log 2 / log 4; which of two is chosen is a coin's toss
    assert found.completeness == pytest.approx(0.5, abs=0.05)


def test_a_code_that_is_turned_by_45_degrees_has_no_gap():
    codes = code(A + B, A - B)
    # a + b is 0, 1, 2 with 1/4, 1/2, 1/4, and says nothing of a where it is 1: I = log 2 − (log 2)/2
    np.testing.assert_allclose(mutual_information(codes, BITS), np.full((2, 2), 0.5))
    assert mig(codes, BITS) == pytest.approx(0)
    assert sap(codes, BITS) == pytest.approx(0, abs=1e-12)  # R² = (1/4)² / (1/2 · 1/4) = 1/2 each
    found = dci(codes, BITS)
    assert found.disentanglement < 0.1
    assert found.completeness < 0.1
    assert found.informativeness == 1


def test_a_dimension_that_mixes_two_factors():
    codes = code(2 * A + B, B)
    # of a: all and nothing, a gap of 1; of b: all and all
    np.testing.assert_allclose(mutual_information(codes, BITS), [[1, 1], [0, 1]], atol=1e-12)
    assert mig(codes, BITS) == pytest.approx(0.5)
    # R² of 2a + b: cov² / (5/4 · 1/4), cov = 1/2 with a and 1/4 with b: 0.8 and 0.2
    assert sap(codes, BITS) == pytest.approx(((0.8 - 0) + (1 - 0.2)) / 2)


def test_half_a_factor_and_the_bins_that_cannot_tell_values_apart():
    v = GRID[:, :1]
    halves = mutual_information(code(v[:, 0] // 2, v[:, 0]), v)
    np.testing.assert_allclose(halves, [[math.log(2) / math.log(4)], [1]])
    np.testing.assert_allclose(
        mutual_information(code(v[:, 0], v[:, 0]), v, bins=2), [[0.5], [0.5]]
    )


def test_categories_are_told_by_a_linear_machine_whatever_their_order():
    shuffled = np.array([2, 0, 1])[np.arange(600) % 3]  # class c lies at 0, 1, 2 in another order
    codes = code(50.0 * (np.arange(600) % 3), np.zeros(600))
    factors = shuffled[:, None]
    # one of three classes against the rest has no threshold for the middle one: 2/3 or more, and chance is 1/3
    assert 0.3 < sap(codes, factors, categorical=(0,)) <= 2 / 3
    two = code(50.0 * (np.arange(600) % 2), np.zeros(600))
    assert sap(two, (np.arange(600) % 2)[:, None], categorical=(0,)) == pytest.approx(1 - 1 / 2)
    assert sap(codes, factors) == pytest.approx(0.25)  # as numbers: correlation −1/2


def test_noise_has_none():
    noise = np.random.default_rng(0).normal(size=(2000, 3))
    factors = np.random.default_rng(1).integers(0, 4, (2000, 2))
    assert mig(noise, factors) < 0.01
    assert sap(noise, factors, categorical=(0,)) < 0.05
    found = dci(noise, factors)
    assert max(found.disentanglement, found.completeness) < 0.02
    assert found.informativeness == pytest.approx(1 / 4, abs=0.05)


def test_disentanglement_and_completeness_of_importances_by_hand():
    importances = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.25, 0.75]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    np.testing.assert_allclose(concentration(importances), [1, 0, 0, 1 - entropy])


@pytest.mark.parametrize(
    ("codes", "factors", "words"),
    [
        (GRID[:, :1], GRID, r"'codes': expected .* two dimensions.*shape \(400, 1\)"),
        (np.full((400, 2), np.nan), GRID, "'codes': expected finite"),
        (GRID, GRID[:-1], r"'factors': expected whole numbers \(400, num_factors\).*\(399, 2\)"),
        (GRID, GRID / 2, "'factors': expected whole numbers.*float64"),
        (GRID, 0 * GRID, "'factors': expected two values of each.*a single one in column 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(codes, factors, words):
    for measure in (mig, sap, dci):
        with pytest.raises(InvalidValueError, match=words):
            measure(codes, factors)


# In the report.


def with_factors(num=200, **changes):
    """Points in the plane of a linear model, with two factors."""
    random = np.random.default_rng(0)
    factors = random.integers(0, 3, (num, 2))
    x = (factors @ random.normal(size=(2, 5)) + random.normal(0, 0.1, (num, 5))).astype("float32")
    known = {"factors_test": factors, "factor_names": ("kind", "place"), "categorical": (0,)}
    return Images("made", x, x, **{**known, **changes})


def section_of(found):
    return next(s for s in found.sections if s.title == "One dimension, one factor")


def test_the_report_has_the_figures_of_the_codes_and_a_picture():
    model, images = linear_vae(True), with_factors()
    found = evaluation.evaluate(model, images, measures=["disentanglement"])
    z, factors = model.code(images.x_test), images.factors_test
    entry = found.metrics["disentanglement"]
    assert entry["mig"] == mig(z, factors)
    assert entry["sap"] == sap(z, factors, (0,))
    assert entry["dci"]["completeness"] == dci(z, factors).completeness
    rows = dict(section_of(found).rows)
    assert rows["MIG, mutual information gap"] == f"{mig(z, factors):.3f}"
    assert rows["kind, most in"].startswith(f"z{np.argmax(entry['information'], axis=0)[0] + 1}, ")
    assert list(section_of(found).figures) == ["factor_information"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"factors_test": None}, "the factors of the images are not known"),
        ({"factors_test": np.stack([np.arange(200) % 2, np.zeros(200, int)], 1)}, "a single place"),
        ({"num": 99}, "fewer than 100 images"),
    ],
)
def test_where_factors_say_nothing_the_report_says_why(changes, why):
    images = with_factors(**changes)
    with pytest.raises(InvalidValueError, match=why):
        evaluation.evaluate(linear_vae(True), images, measures=["disentanglement"])
    found = evaluation.measures.run(
        evaluation.subject.Subject(linear_vae(True), images), evaluation.MEASURES[-1:]
    )
    assert why in section_of(found).text
    assert "disentanglement" not in found.metrics


def test_any_model_with_a_vector_code_will_do_and_factors_need_no_names():
    images = with_factors(factor_names=())
    model = Autoencoder()
    model.compile()
    model.fit(images.x_train, epochs=1, verbose=0)
    found = evaluation.evaluate(model, images, measures=["disentanglement"])
    assert "factor 2, most in" in dict(section_of(found).rows)


def test_a_code_of_another_shape_is_refused():
    class Map(Autoencoder):
        def encode(self, x):
            return super().encode(x)[:, :, None]

        def decode(self, z):
            return super().decode(z[:, :, 0])

    model = Map()
    model.compile()
    model.fit(with_factors().x_train, epochs=1, verbose=0)
    with pytest.raises(InvalidValueError, match=r"no vector of two dimensions.*\(3, 1\)"):
        evaluation.evaluate(model, with_factors(), measures=["disentanglement"])


def test_the_picture_has_a_cell_for_each_pair_and_leaves_out_what_has_no_room():
    figure = plots.factor_information(np.array([[0.1, 0.9], [0.7, 0.2], [0, 0]]), ("$a", "b"))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "0.10",
        "0.70",
        "0.00",
        "0.90",
        "0.20",
        "0.00",
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"\$a", "b"]
    information = np.zeros((60, 2))
    information[59] = 1
    axes = plots.factor_information(information, ("a", "b")).axes[0]
    assert axes.images[0].get_array().shape == (2, 50)
    assert axes.images[0].get_array()[:, -1].tolist() == [1, 1]
