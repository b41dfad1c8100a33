"""Inpainting: the chain's draws against the exact conditional, masks, seeds, models without noise."""

import numpy as np
import pytest
from application_helpers import run_command
from helpers import blobs
from linear_models import PIXELS, POINTS, SIGMA, linear_vae
from small_models import Autoencoder, save_run

import vae_tf
from vae_tf.applications.inpainting import inpaint, missing_mse
from vae_tf.applications.masks import mask_of

MISSING = np.array([True, False, True, False, False])


def test_the_chains_draws_are_from_the_exact_conditional():
    """x ~ N(b, WᵀW + σ²I), and q(z|x) is the posterior: p(x_missing|x_given) is a normal."""
    model, num = linear_vae(True), 1000
    found = inpaint(model, POINTS[:1], MISSING, num=num, steps=20, seed=1)
    w, b = (np.float64(a) for a in model.decoder.get_layer("logits").get_weights())
    cov, given = w.T @ w + SIGMA**2 * np.eye(PIXELS), ~MISSING
    gain = cov[np.ix_(MISSING, given)] @ np.linalg.inv(cov[np.ix_(given, given)])
    mean = b[MISSING] + gain @ (POINTS[0, given] - b[given])
    cov = cov[np.ix_(MISSING, MISSING)] - gain @ cov[np.ix_(given, MISSING)]
    draws = found.draws[:, 0, MISSING]
    np.testing.assert_allclose(draws.mean(0), mean, atol=4 * np.sqrt(cov.max() / num))
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / num)
    assert (np.abs(np.cov(draws.T) - cov) < 4 * spread).all()
    means = found.completions[:, 0, MISSING]  # E[x|z], which lacks the noise of the pixels
    assert (np.abs(np.cov(means.T) + SIGMA**2 * np.eye(2) - cov) < 4 * spread).all()


def test_a_completion_is_fixed_by_the_seed_the_image_and_its_number():
    model = linear_vae(False)
    options = {"mask": MISSING, "steps": 5, "seed": 2}
    found = inpaint(model, POINTS, num=3, **options).draws
    fewer = inpaint(model, POINTS[:7], num=2, **options).draws
    np.testing.assert_allclose(fewer, found[:2, :7], atol=1e-4)
    assert (np.ptp(found[..., MISSING], axis=0) > 0.01).all()
    assert (inpaint(model, POINTS, num=3, **options | {"seed": 3}).draws != found).any()


def test_what_is_given_is_kept_and_what_is_missing_not_looked_at():
    model, x = linear_vae(False), POINTS.copy()
    found = inpaint(model, x, MISSING, num=2, steps=3)
    x[:, MISSING] = np.nan
    again = inpaint(model, x, MISSING, num=2, steps=3)
    for kind in (found.completions, found.draws):
        np.testing.assert_array_equal(kind[..., ~MISSING], np.float32([POINTS[:, ~MISSING]] * 2))
    np.testing.assert_array_equal(found.draws, again.draws)
    square = (found.completions - POINTS)[..., MISSING] ** 2
    np.testing.assert_allclose(found.mse(POINTS), square.mean(-1), rtol=1e-5)


def test_an_autoencoder_repeats_its_reconstruction_until_it_rests():
    """x → xP with a projection P comes to rest where x_m = x_m P_mm + x_g P_gm."""
    model = Autoencoder(seed=0)
    model.build((None, PIXELS))
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(PIXELS, 3)))[0]
    model.encoder.layers[-1].set_weights([basis, np.zeros(3)])
    model.decoder.layers[0].set_weights([basis.T, np.zeros(PIXELS)])
    p, given = basis @ basis.T, ~MISSING
    rest = POINTS[:, given] @ p[np.ix_(given, MISSING)]
    rest = rest @ np.linalg.inv(np.eye(2) - p[np.ix_(MISSING, MISSING)])
    found = inpaint(model, POINTS, MISSING, steps=3000)
    assert not found.sampled
    assert found.draws is None
    np.testing.assert_allclose(found.completions[0][:, MISSING], rest, atol=1e-3)
    with pytest.raises(ValueError, match="'num': expected 1, for all completions would be equal"):
        inpaint(model, POINTS, MISSING, num=2)


def told_labels():
    model = vae_tf.ConditionalVAE(2, (8,), num_classes=4, seed=0)
    model.build((None, 8, 8))
    return model, blobs(6, (8, 8)), {"mask": "top", "num": 2, "steps": 3}


def test_each_image_is_completed_with_its_label():
    model, x, options = told_labels()
    labels = np.arange(6) % 4
    found, of_1 = (inpaint(model, x, **options, condition=c).completions for c in (labels, 1))
    change = np.abs(of_1 - found).max(axis=(0, 2, 3))
    np.testing.assert_array_equal(change > 1e-4, labels != 1)


@pytest.mark.slow
def test_an_exported_model_completes_as_the_model_does_with_means(tmp_path):
    """Grey values, which a Bernoulli cannot give: neither draws pixels."""
    model, x, options = told_labels()
    vae_tf.export_decoder(model, tmp_path / "models", with_encoder=True)
    sources = (model, tmp_path / "models")
    found, exported = (inpaint(s, x, **options, condition=2) for s in sources)
    assert found.sampled
    assert found.draws is None
    np.testing.assert_allclose(exported.completions, found.completions, atol=1e-4)


def test_binary_images_are_completed_by_binary_draws():
    x = blobs(6, (8, 8)) > 128
    model = vae_tf.VAE(2, (8,), seed=0)
    model.build((None, 8, 8))
    found = inpaint(model, x, "left", num=2, steps=2)
    assert {*np.unique(found.draws)} == {0, 1}
    assert 0 < found.completions[..., :4].min() < found.completions[..., :4].max() < 1


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("left", slice(None), slice(0, 2)), ("right", slice(None), slice(2, None)),
        ("top", slice(0, 3), slice(None)), ("bottom", slice(3, None), slice(None)),
        ("centre", slice(1, 5), slice(1, 4)),
    ],
)  # fmt: skip
def test_regions_by_name(name, rows, columns):
    right = np.zeros((2, 6, 5, 3), bool)
    right[:, rows, columns] = True
    np.testing.assert_array_equal(mask_of(name, (6, 5, 3), 2), right)


def test_random_masks_have_their_share_and_take_all_colours_of_a_pixel():
    found = mask_of("random:0.3", (20, 20, 3), 50, seed=1)
    assert abs(found.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 20000)
    assert (found == found[..., :1]).all()
    np.testing.assert_array_equal(mask_of("random:0.3", (20, 20, 3), 5, seed=1), found[:5])
    assert mask_of("random:0.3", (20,), 5).shape == (5, 20)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 4, 5), (2, 4, 5, 3)])
def test_arrays_for_all_images_and_for_each(shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    whole = mask if len(shape) != 3 or shape[0] == 2 else mask[None]
    whole = whole[None] if len(shape) == 2 else whole
    whole = whole[..., None] if whole.ndim == 3 else whole
    np.testing.assert_array_equal(mask_of(mask, (4, 5, 3), 2), np.broadcast_to(whole, (2, 4, 5, 3)))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((5, 4), bool), r"shape \(4, 5\) or \(2, 4, 5\). Received: shape \(5, 4\)"),
        (np.ones((3, 4, 5), bool), r"Received: shape \(3, 4, 5\)"),
        (np.ones((4, 5)), "values of float64. mask.astype"),
        (np.zeros((4, 5), bool), "at least one missing pixel"),
        ("middle", "'left', 'right', 'top', 'bottom', 'centre', 'random:0.5'"),
        ("random:2", "a number from 0 to 1"),
        ("random:half", "'random:' and a number"),
        ("random", "Received: 'random'"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    with pytest.raises((ValueError, TypeError), match=message):
        mask_of(mask, (4, 5), 2)


def test_a_vector_has_no_top():
    with pytest.raises(ValueError, match="'top', of vectors"):
        mask_of("top", (6,), 2)
    assert mask_of("left", (6,), 2).tolist() == [[True] * 3 + [False] * 3] * 2


def test_the_command(tmp_path):
    model = vae_tf.VAE(2, (8,), seed=0)
    model.build((None, 8, 8, 1))
    run, mask = save_run(model, tmp_path / "run"), tmp_path / "mask.npy"
    np.save(mask, np.arange(64).reshape(8, 8) < 16)
    options = {"dataset": "digits", "images": 7, "num": 3, "steps": 2, "mask": str(mask)}
    found = run_command("inpaint", run, tmp_path / "out", **options).metrics["inpaint"]
    assert found["missing"] == 0.25
    images = vae_tf.load("digits")
    missing = np.broadcast_to(np.load(mask)[..., None], (7, 8, 8, 1))
    mean = np.mean(images.x_train / 255, axis=0)
    right = missing_mse(mean, images.x_test[:7], missing).mean()
    assert found["mse_of_the_training_mean"]["mean"] == pytest.approx(right)
    np.save(mask, np.ones((4, 4), bool))
    with pytest.raises(ValueError, match=r"shape \(4, 4\)"):
        run_command("inpaint", run, tmp_path / "other", **options)
    assert not (tmp_path / "other").exists()
