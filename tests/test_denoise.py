"""Denoising: PSNR and SSIM against their formulas, the noise, and the command."""

import numpy as np
import pytest
import scipy.signal
from application_helpers import run_command
from helpers import blobs
from small_models import save_run

import vae_tf
from vae_tf.applications.denoising import Denoised, corrupt, denoise, psnr, ssim

X = blobs(12, (8, 8))


@pytest.fixture(scope="module")
def model():
    model = vae_tf.VAE(2, (8,), seed=0)
    model.build((None, 8, 8))
    return model


def test_psnr_has_its_known_values():
    x = np.full((3, 4, 4), 0.5)
    y = x + np.array([0.1, 0.01, 0.0])[:, None, None]
    np.testing.assert_allclose(psnr(x, y), [20, 40, np.inf])


@pytest.mark.parametrize(("shape", "size"), [((16, 12), 11), ((8, 8), 7), ((16, 16, 3), 11)])
def test_ssim_is_the_formula_of_the_paper(shape, size):
    """Wang et al. (2004), equation 13, with a Gaussian window of σ = 1.5, by plain convolutions."""
    random = np.random.default_rng(0)
    x = random.uniform(size=(2, *shape))
    y = np.clip(x + random.normal(0, 0.2, x.shape), 0, 1)
    line = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2

    def mean(image):
        return scipy.signal.convolve2d(image, window, mode="valid")

    def one(a, b):
        (ma, mb), (c1, c2) = (mean(a), mean(b)), (0.01**2, 0.03**2)
        va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        top = (2 * ma * mb + c1) * (2 * cov + c2)
        return (top / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()

    pairs = [
        np.moveaxis(np.atleast_3d(each), -1, 0) for pair in zip(x, y, strict=True) for each in pair
    ]
    right = [np.mean([*map(one, a, b)]) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    np.testing.assert_allclose(ssim(x, y), right, rtol=1e-4)
    np.testing.assert_allclose(ssim(x, x), 1, rtol=1e-6)


def test_what_comes_back_is_the_reconstruction_of_the_corrupted_image(model):
    found = denoise(model, X, "masking", 0.5, seed=1)
    np.testing.assert_allclose(found.originals, X / 255, atol=1e-6)
    kept = found.corrupted != 0
    np.testing.assert_array_equal(found.corrupted[kept], found.originals[kept])
    assert abs(1 - kept.mean() - 0.5) < 0.1
    np.testing.assert_allclose(found.denoised, model.reconstruct(found.corrupted), atol=1e-5)
    quality = found.quality()
    after = psnr(found.originals, found.denoised)
    assert quality["psnr_after"].mean == pytest.approx(after.mean())
    gain = after - psnr(found.originals, found.corrupted)
    assert quality["psnr_gain"].standard_error == pytest.approx(gain.std(ddof=1) / np.sqrt(len(X)))


def test_an_images_noise_does_not_depend_on_the_others_and_stays_between_black_and_white():
    layer, x = vae_tf.AdditiveGaussian(0.5), np.float32(X / 255)
    together = corrupt(x, layer, seed=3)
    np.testing.assert_allclose(corrupt(x[:5], layer, seed=3), together[:5], atol=1e-6)
    assert (together.min(), together.max()) == (0, 1)
    assert (corrupt(x, layer, seed=4) != together).any()


def test_images_that_were_not_changed_are_left_out():
    x = np.random.default_rng(0).uniform(size=(3, 8, 8)).astype("float32")
    corrupted = x.copy()
    corrupted[1:, 0, 0] = 0
    quality = Denoised(x, corrupted, corrupted).quality()
    assert quality["psnr_before"].mean == pytest.approx(psnr(x, corrupted)[1:].mean())


def test_vectors_have_no_ssim_and_values_beyond_white_no_psnr():
    model = vae_tf.VAE(2, (8,), likelihood=vae_tf.Gaussian(1.0), seed=0)
    model.build((None, 6))
    x = np.random.default_rng(0).uniform(size=(4, 6))
    assert {*denoise(model, x, "gaussian", 0.2).quality()} == {
        "psnr_before",
        "psnr_after",
        "psnr_gain",
    }
    with pytest.raises(ValueError, match="'x': expected images in \\[0, 1\\], or bytes"):
        denoise(model, 2 * x, "gaussian", 0.2)


def test_the_command(tmp_path):
    model = vae_tf.VAE(2, (8,), seed=0)
    model.build((None, 8, 8, 1))
    run = save_run(model, tmp_path / "run")
    options = {
        "dataset": "digits",
        "images": 20,
        "level": (0.25, 0.5),
        "corruption": ("masking", "gaussian"),
    }
    found = run_command("denoise", run, tmp_path / "out", **options)
    assert [*found.metrics["denoise"]] == [
        "masking 0.25",
        "masking 0.5",
        "gaussian 0.25",
        "gaussian 0.5",
    ]
    assert found.metrics["denoise"]["masking 0.25"]["images"] == 20
    assert [section.caveats != [] for section in found.sections[:4]] == [True, False, False, False]
    refused = r"'level': expected a number from 0 to 1. Received: level=2"
    with pytest.raises(ValueError, match=refused):
        run_command("denoise", run, tmp_path / "other", **options | {"level": (2.0,)})
