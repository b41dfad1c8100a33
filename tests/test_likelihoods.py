"""The Gaussian likelihood and binary draws, alone and in a model that is trained and saved."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from scipy import stats

from vae_tf import VAE, Binarize, Gaussian, Sampling
from vae_tf.errors import InvalidTypeError, InvalidValueError
from vae_tf.models.base import EVALUATION_SEED

LATENT, PIXELS = 2, 5
POINTS = np.random.default_rng(3).normal(1.0, 1.5, (23, PIXELS))


def test_gaussian_log_prob_and_samples_against_scipy():
    mean, x = np.random.default_rng(0).normal(0, 3, (2, 4, 6, 5)).astype("float32")
    expected = stats.norm(mean, 0.3).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(Gaussian(sigma=0.3).log_prob(mean, x), expected, rtol=1e-5)
    samples = Gaussian(sigma=0.3).sample(tf.fill((20000,), 2.0), seed=0).numpy()
    assert stats.kstest(samples, stats.norm(2.0, 0.3).cdf).pvalue > 1e-4


def test_a_learned_sigma_is_that_of_probabilistic_pca():
    """Maximum likelihood has σ² = mean of the least D − L eigenvalues (Tipping & Bishop 1999).

    Adam comes within 1 % of that, slowly; the estimate's own error is σ/√(2N(D − L)) = 1.3 %.
    """
    random = np.random.default_rng(0)
    z, noise = random.normal(size=(1000, LATENT)), random.normal(size=(1000, PIXELS))
    x = z @ random.normal(size=(LATENT, PIXELS)) + 0.3 * noise - 2
    least = np.linalg.eigvalsh(np.cov(x.T, bias=True))[: PIXELS - LATENT]
    model = VAE(LATENT, hidden_units=(), likelihood="gaussian", seed=0)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 12000)))
    model.fit(x, epochs=600, batch_size=50, verbose=0)
    sigma = math.exp(float(model.likelihood.log_sigma))
    assert sigma == pytest.approx(math.sqrt(least.mean()), rel=0.01)
    assert sigma == pytest.approx(0.3, rel=0.01 + 3 * 0.013)


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf, "a", True])
def test_sigma_is_a_positive_number(sigma):
    error = InvalidTypeError if sigma in ("a", True) else InvalidValueError
    with pytest.raises(error, match="sigma"):
        Gaussian(sigma=sigma)


@pytest.mark.parametrize("sigma", [0.25, None])
def test_sigma_is_saved(tmp_path, sigma):
    model = VAE(LATENT, hidden_units=(), likelihood=Gaussian(sigma=sigma), seed=0)
    model.build((None, PIXELS))
    model.compile()
    model.optimizer.build(model.trainable_variables)
    if sigma is None:
        model.likelihood.log_sigma.assign(math.log(0.7))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.likelihood.sigma == sigma
    assert restored.likelihood.log_sigma.trainable == (sigma is None)
    assert math.exp(float(restored.likelihood.log_sigma)) == pytest.approx(sigma or 0.7)
    weights = [m.log_weights(POINTS, 10, seed=0) for m in (model, restored)]
    np.testing.assert_array_equal(*weights)


def test_binarize_draws_anew_with_the_grey_value_as_probability():
    grey = np.tile(np.float32([0, 1, 0.25, 0.7]), (20000, 1))
    layer = Binarize(seed=0)
    first, second = layer(grey).numpy(), layer(grey).numpy()
    np.testing.assert_array_equal(np.unique(first), [0.0, 1.0])
    np.testing.assert_array_equal(first[:, :2], grey[:, :2])
    np.testing.assert_allclose(first.mean(0), grey[0], atol=4 * 0.5 / math.sqrt(20000))
    for column in (2, 3):  # draws that know nothing of one another
        assert abs(np.corrcoef(first[:, column], second[:, column])[0, 1]) < 4 / math.sqrt(20000)
    np.testing.assert_array_equal(Binarize(seed=0)(grey), first)


def test_training_and_evaluation_are_on_binary_draws():
    """Each epoch's loss, and `evaluate`'s, by NumPy from draws of layers with the model's seeds."""
    grey = blobs(40, (6, 6))
    model = VAE(latent_dim=2, hidden_units=(8,), binarize=True, seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    losses = model.fit(grey, epochs=2, batch_size=40, shuffle=False, verbose=0).history["loss"]
    layers = Binarize(seed=model.binarize.seed), Sampling(seed=model.sampling.seed)
    expected = [_loss(model, grey, *layers) for _ in range(2)]
    assert abs(expected[0] - expected[1]) > 1e-3
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    expected = _loss(model, grey, Binarize(seed=EVALUATION_SEED), Sampling(seed=EVALUATION_SEED))
    found = model.evaluate(grey, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def _loss(model, grey, binarize, sampling):
    x = binarize(tf.constant(grey / np.float32(255))).numpy()
    mean, log_var = (np.asarray(a) for a in model.encode(x))
    logits = np.float64(model.decode(sampling((mean, log_var))))
    kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(1)
    return np.mean((np.logaddexp(0, logits) - x * logits).sum((1, 2)) + kl)
