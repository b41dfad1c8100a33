"""Sprites: what is drawn for each factor, and factors that go wherever the images go."""

import dataclasses
import itertools

import numpy as np
import pytest
from helpers import run_python

from vae_tf import data
from vae_tf.data import sprites
from vae_tf.training import TrainConfig, plan

VALUES = {"shape": 3, "size": 4, "rotation": 6, "x": 13, "y": 13}


@pytest.fixture(scope="module")
def images():
    return data.load("sprites")


def moments(image):
    """Area, centre (x to the right, y down, from the image's middle), and the long axis's angle in degrees."""
    weights = image[..., 0] / 255
    y, x = np.mgrid[:32, :32] - 15.5
    area = weights.sum()
    centre = np.array([(weights * x).sum(), (weights * y).sum()]) / area
    u, v = x - centre[0], centre[1] - y
    covariance = [(weights * a * b).sum() for a, b in ((u, u), (u, v), (v, v))]
    return (
        area,
        centre,
        np.degrees(np.arctan2(2 * covariance[1], covariance[0] - covariance[2])) / 2,
    )


def test_every_combination_of_factors_is_one_image_unlike_all_others(images):
    factors = np.concatenate([images.factors_train, images.factors_test])
    assert images.factor_names == tuple(VALUES)
    assert {tuple(row) for row in factors.tolist()} == set(
        itertools.product(*map(range, VALUES.values()))
    )
    x = np.concatenate([images.x_train, images.x_test])
    assert x.shape == (12_168, 32, 32, 1)
    assert x.dtype == np.uint8
    assert set(np.unique(x)) == {0, 255}
    assert len(np.unique(x.reshape(len(x), -1), axis=0)) == len(x)
    assert not x[:, [0, -1]].any()  # whole: no sprite is cut at the border
    assert not x[:, :, [0, -1]].any()


def test_images_have_the_size_place_and_rotation_that_their_factors_say(images):
    squares = images.factors_test[:, 0] == 0
    for image, factors in zip(
        images.x_test[squares][:50], images.factors_test[squares], strict=False
    ):
        area, centre, _ = moments(image)
        assert area**0.5 == pytest.approx(2 * sprites.SIZES[factors[1]], abs=1)  # a pixel
        np.testing.assert_allclose(centre, sprites.POSITIONS[factors[3:]], atol=0.3)
    ellipses = sprites.draw(np.array([[1, 3, k, 2, 9] for k in range(6)]))
    angles = [moments(image)[2] for image in ellipses]
    np.testing.assert_allclose(angles, [0, 15, 30, 45, 60, 75], atol=3)
    heart = sprites.draw(np.array([[2, 3, 0, 6, 6]]))[0, ..., 0]
    np.testing.assert_array_equal(heart, heart[:, ::-1])
    rows = (heart > 0).sum(axis=1)
    rows = rows[rows > 0]
    assert rows[0] > rows[-1]  # its point is below


def test_a_step_of_x_or_y_moves_the_image_by_a_pixel():
    here, right, below = sprites.draw(np.array([[2, 1, 4, 5, 5], [2, 1, 4, 6, 5], [2, 1, 4, 5, 6]]))
    np.testing.assert_array_equal(right, np.roll(here, 1, axis=1))
    np.testing.assert_array_equal(below, np.roll(here, 1, axis=0))


def test_it_is_the_same_each_time_split_once_and_of_all_kinds_from_the_first(images):
    again = data.load("sprites")
    for field in dataclasses.fields(images):
        np.testing.assert_array_equal(getattr(images, field.name), getattr(again, field.name))
    assert len(images.x_test) == round(0.2 * 12_168)
    assert len(np.unique(images.factors_test[:30, 0])) == 3
    np.testing.assert_array_equal(images.y_test, images.factors_test[:, 0])


def test_factors_stay_with_their_images(images):
    held = data.hold_out(images, 0.1)
    assert len(held.x_test) == round(0.1 * len(images.x_train))
    for part in ("train", "test"):
        drawn = sprites.draw(getattr(held, f"factors_{part}")[:50])
        np.testing.assert_array_equal(getattr(held, f"x_{part}")[:50], drawn)
    smaller = data.binarize(data.load("sprites", resize=16))
    assert smaller.image_shape == (16, 16, 1)
    np.testing.assert_array_equal(smaller.factors_train, images.factors_train)
    assert (smaller.factor_names, smaller.categorical) == (images.factor_names, (0,))


def test_images_without_factors_have_none_after_a_split():
    held = data.hold_out(data.load("digits"), 0.1)
    assert (held.factors_train, held.factors_test, held.factor_names) == (None, None, ())


def test_the_command_takes_sprites_by_name_without_tensorflow():
    assert plan.prepare(TrainConfig(dataset="sprites")).path.name.startswith("sprites_")
    printed = run_python(
        "import contextlib, io, sys\nfrom vae_tf import cli\n"
        "with contextlib.redirect_stderr(io.StringIO()) as err:\n"
        "    cli.main(['train', '--dataset', 'sprites', '--batch-size', '10000'])\n"
        "print(err.getvalue(), sorted({'tensorflow', 'keras'} & {*sys.modules}))"
    )
    assert "at most the 9734 training images" in printed
    assert printed.rstrip().endswith("[]")
