"""Walks in the space of codes: their laws for linear models, the formula of the arc, the command."""

import numpy as np
import pytest
from application_helpers import run_command
from helpers import blobs
from linear_models import POINTS, linear_vae
from scipy.spatial import geometric_slerp
from small_models import Autoencoder, save_run

import vae_tf
from vae_tf import paths
from vae_tf.applications.variations import around, attribute_vector, path, with_attribute

T = np.linspace(0, 1, 7)
ONE, OTHER = np.random.default_rng(0).normal(size=(2, 5))


def unit(z):
    return z / np.linalg.norm(z)


def test_the_arc_between_unit_vectors_is_scipys():
    found = paths.spherical(unit(ONE), unit(OTHER), T)
    np.testing.assert_allclose(found, geometric_slerp(unit(ONE), unit(OTHER), T), atol=1e-12)


def test_the_arc_turns_evenly_and_its_length_grows_evenly():
    found = paths.spherical(ONE, 3 * OTHER, T)
    lengths = np.linalg.norm(found, axis=1)
    ends = np.linalg.norm(ONE), 3 * np.linalg.norm(OTHER)
    np.testing.assert_allclose(lengths, (1 - T) * ends[0] + T * ends[1])
    cosines = (found[1:] * found[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
    angle = np.arccos(unit(ONE) @ unit(OTHER))
    np.testing.assert_allclose(np.arccos(cosines), angle / 6)
    np.testing.assert_allclose(found[[0, -1]], [ONE, 3 * OTHER], atol=1e-12)


@pytest.mark.parametrize("other", [ONE, 2 * ONE, ONE * (1 + 1e-12), ONE + 1e-9 * OTHER, 0 * ONE])
def test_the_arc_between_nearly_parallel_codes_is_the_straight_line(other):
    np.testing.assert_allclose(
        paths.spherical(ONE, other, T), paths.straight(ONE, other, T), atol=1e-8
    )


@pytest.mark.parametrize("nearly", [0, 1e-9, 1e-5])
def test_the_arc_to_the_opposite_code_keeps_its_distance_from_0(nearly):
    other = -ONE + nearly * OTHER
    found = paths.spherical(ONE, other, T)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(ONE), rtol=1e-4)
    np.testing.assert_allclose(found[[0, -1]], [ONE, other], atol=1e-8)
    assert not paths.spherical(0 * ONE, 0 * ONE, T).any()


def test_maps_of_codes_go_as_long_vectors():
    start, end = np.random.default_rng(1).normal(size=(2, 3, 4, 2))
    found = paths.between(start, end, 5, "spherical")
    flat = paths.spherical(start.ravel(), end.ravel(), np.linspace(0, 1, 5))
    np.testing.assert_allclose(found, flat.reshape(5, 3, 4, 2), rtol=1e-6)
    with pytest.raises(ValueError, match="'path': expected 'straight' or 'spherical'"):
        paths.between(start, end, 5, "curved")


@pytest.mark.parametrize("kind", ["straight", "spherical"])
def test_a_path_is_what_interpolate_gives(kind):
    model, x = vae_tf.VAE(3, (8,), seed=0), blobs(2, (8, 8))
    model.build((None, 8, 8))
    found = path(model, x[0], x[1], 5, kind)
    np.testing.assert_allclose(found, model.interpolate(x[0], x[1], 5, path=kind), atol=1e-5)
    codes = paths.PATHS[kind](*model.code(x), np.linspace(0, 1, 5))
    np.testing.assert_allclose(found, model.decode_images(codes), atol=1e-5)


def test_variations_have_the_mean_and_the_spread_of_the_posterior():
    """x' = (μ + s·σ·ε)W + b, of covariance s²·Wᵀ diag(σ²) W."""
    model, num = linear_vae(True), 4000
    found = around(model, POINTS[:2], num, scale=1.5, seed=1)
    w = np.float64(model.decoder.get_layer("logits").get_weights()[0])
    log_var = np.float64(model.encode(POINTS[:2])[1])
    for row in range(2):
        cov = 1.5**2 * (w.T * np.exp(log_var[row])) @ w
        middle = model.reconstruct(POINTS[[row]])[0]
        np.testing.assert_allclose(found[row].mean(0), middle, atol=4 * np.sqrt(cov.max() / num))
        spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / num)
        assert (np.abs(np.cov(found[row].T) - cov) < 4 * spread).all()
    np.testing.assert_allclose(around(model, POINTS[:1], 3, 1.5, 1)[0], found[0, :3], atol=1e-5)
    still = around(model, POINTS, 1, scale=0)[:, 0]
    np.testing.assert_allclose(still, model.reconstruct(POINTS), atol=1e-5)


def test_an_attribute_moves_the_mean_of_one_group_to_that_of_the_other():
    model = linear_vae(False)
    without, having = POINTS[:8], POINTS[8:]
    vector = attribute_vector(model, without, having)
    found = with_attribute(model, without, vector, (0, 0.5, 1))
    np.testing.assert_allclose(found[:, 0], model.reconstruct(without), atol=1e-5)
    ends = [model.reconstruct(group).mean(0) for group in (without, having)]
    np.testing.assert_allclose(found.mean(0), [ends[0], np.mean(ends, 0), ends[1]], atol=1e-5)
    with pytest.raises(ValueError, match=r"'vector': expected one of shape \(2,\)"):
        with_attribute(model, without, np.ones(3), (0, 1))


def test_each_image_keeps_its_label():
    model, x, labels = (
        vae_tf.ConditionalVAE(2, (8,), num_classes=4, seed=0),
        blobs(4, (8, 8)),
        np.arange(4),
    )
    model.build((None, 8, 8))
    still = around(model, x, 3, scale=0, condition=labels)
    right = model.reconstruct(x, labels)
    np.testing.assert_allclose(still, np.repeat(right[:, None], 3, axis=1), atol=1e-5)
    again = with_attribute(model, x, np.zeros(2), (0, 1), labels)
    np.testing.assert_allclose(again[:, 1], right, atol=1e-5)


def test_models_without_sigma_have_no_variations_around_an_image():
    vqvae = vae_tf.VQVAE(4, 3, filters=(8,), seed=0)
    vqvae.build((None, 8, 8, 1))
    x = blobs(2, (8, 8, 1))
    with pytest.raises(TypeError, match=r"expected a model with a Gaussian q\(z\|x\)"):
        around(vqvae, x)
    assert path(vqvae, x[0], x[1], 3).shape == (3, 8, 8, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variations")
    vae, told = vae_tf.VAE(2, (8,), seed=0), vae_tf.ConditionalVAE(2, (8,), num_classes=10, seed=0)
    for name, model in {"vae": vae, "told": told, "plain": Autoencoder(seed=0)}.items():
        model.build((None, 8, 8, 1))
        save_run(model, folder / name)
    return folder


def walk(folder, name, out, **options):
    return run_command("variations", folder / name, out, dataset="digits", **options)


def test_the_command(folder, tmp_path):
    options = {"kind": "attribute", "from_label": "3", "to_label": "8", "strengths": (0.0, 1.0)}
    found = walk(folder, "plain", tmp_path / "attribute", **options).metrics["variations"]
    labels = vae_tf.load("digits").y_test
    assert found["images"] == [(labels == 3).sum(), (labels == 8).sum()]


@pytest.mark.slow
def test_the_command_around_images_and_between_those_of_one_label(folder, tmp_path):
    found = walk(folder, "vae", tmp_path / "around", index=(3, 5), num=2, scale=2.0)
    assert found.metrics["variations"]["scale"] == 2
    found = walk(folder, "told", tmp_path / "path", kind="path", num=3)
    assert {*found.sections[0].figures} == {"path_straight", "path_spherical"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vae", {"index": (3, 360)}, "'index': expected numbers of the 360 images, from 0 to 359"),
        ("vae", {"kind": "path", "index": (3,)}, "two images or more"),
        ("told", {"kind": "path", "index": (0, 1)}, "images of one label"),
        ("plain", {}, r"a Gaussian q\(z\|x\)"),
        (
            "vae",
            {"kind": "attribute", "from_label": "3"},
            "'to_label': expected one of the labels 0, 1",
        ),
        ("vae", {"kind": "attribute", "from_label": "x", "to_label": "8"}, "from_label='x'"),
        ("vae", {"from_label": "3"}, "'from_label': expected it with"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    folder, tmp_path, name, options, message
):
    with pytest.raises((ValueError, TypeError), match=message):
        walk(folder, name, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
