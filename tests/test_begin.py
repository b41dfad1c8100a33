"""Where training begins: the output at the images' mean; and samples that are as bright as the images."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from training_helpers import small_vae

from vae_tf import VAE, KLWarmup, LatentMonitor, networks
from vae_tf.engine import inputs
from vae_tf.errors import InvalidValueError, PriorMismatchWarning
from vae_tf.likelihoods import LIKELIHOODS, Gaussian
from vae_tf.training import RECIPES

every_likelihood = pytest.mark.parametrize("likelihood", [*LIKELIHOODS, "per_pixel"])


def light_pictures(num, side, seed=0):
    """Coloured discs of any place, size and hue on backgrounds near white, as bytes."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    place, size = (
        random.uniform(0.35, 0.65, (2, num, 1, 1)),
        random.uniform(0.15, 0.35, (num, 1, 1)),
    )
    distance = np.hypot(x - place[0], y - place[1]) / size
    inside = 1 / (1 + np.exp(20 * (distance - 1)))[..., None]
    back, front = random.uniform(0.9, 1, (num, 1, 1, 3)), random.uniform(0, 0.8, (num, 1, 1, 3))
    return np.round(255 * (inside * front + (1 - inside) * back)).astype("uint8")


def begun(x, likelihood, **kwargs):
    """A model after an epoch at rate 0: what `fit` begins with."""
    likelihood = Gaussian("per_pixel") if likelihood == "per_pixel" else likelihood
    optimizer = keras.optimizers.SGD(0.0)
    vae = small_vae(likelihood=likelihood, optimizer=optimizer, jit_compile=False, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae.fit(x, epochs=1, verbose=0)
    return vae


@every_likelihood
def test_the_code_0_is_decoded_to_the_mean_image(likelihood):
    x = blobs(40, (8, 8, 3))
    image = begun(x, likelihood).decode_images(np.zeros((1, 2)))[0]
    np.testing.assert_allclose(image, x.mean(axis=0) / 255, atol=4e-3)


@every_likelihood
def test_a_convolutional_decoder_begins_at_each_channel_s_mean(likelihood):
    x = light_pictures(40, 8)
    image = begun(x, likelihood, network="conv").decode_images(np.zeros((1, 2)))[0]
    np.testing.assert_allclose(
        image, np.broadcast_to(x.mean((0, 1, 2)) / 255, x[0].shape), atol=4e-3
    )


def test_spreads_begin_at_that_of_the_images():
    x = light_pictures(40, 8).astype("float32") / 255
    sigma = float(np.exp(begun(x, "gaussian").likelihood.log_sigma))
    np.testing.assert_allclose(sigma, np.sqrt(x.var(axis=0).mean()), rtol=1e-4)
    sigmas = np.exp(begun(x, "per_pixel").likelihood.log_sigma)
    np.testing.assert_allclose(sigmas, x.std(axis=0), rtol=1e-4)
    given = begun(x, Gaussian(0.3)).likelihood.log_sigma
    np.testing.assert_allclose(np.exp(given), 0.3, rtol=1e-6)


def test_pixels_that_are_always_black_or_white_begin_at_finite_logits():
    x = np.zeros((20, 8, 8), "uint8")
    x[:, 4:] = 255
    vae = begun(x, "bernoulli")
    assert np.abs(vae.decoder.get_layer("logits").bias.numpy()).max() < 7


def test_a_second_fit_goes_on_where_the_first_one_was():
    vae = begun(blobs(40), "bernoulli")
    bias = vae.decoder.get_layer("logits").bias.numpy()
    vae.compile(keras.optimizers.SGD(0.0))
    vae.fit(blobs(40, seed=1)[:, ::-1] // 2, verbose=0)
    np.testing.assert_array_equal(vae.decoder.get_layer("logits").bias, bias)


def test_a_data_set_begins_where_its_array_does():
    x = blobs(50)
    batches = tf.data.Dataset.from_tensor_slices(x).batch(20)
    one, other = (begun(data, "bernoulli").decoder.get_layer("logits") for data in (x, batches))
    np.testing.assert_array_equal(one.bias, other.bias)


def test_of_many_images_some_are_looked_at():
    x, model = blobs(100), small_vae()
    every_third = inputs.training_images(model, x, x, numbers=64 * 40)
    np.testing.assert_allclose(every_third * 255, x[::3], rtol=1e-6)
    without_end = tf.data.Dataset.from_tensor_slices(x).batch(30).repeat()
    first = inputs.training_images(model, without_end, x, numbers=64 * 40)
    np.testing.assert_allclose(first * 255, x[:60], rtol=1e-6)


def test_zeros_begin_where_the_original_program_does():
    vae = begun(blobs(40), "gaussian", output_bias="zeros")
    assert not np.any(vae.decoder.get_layer("logits").bias)
    assert float(vae.likelihood.log_sigma) == 0
    assert VAE.from_config(vae.get_config()).output_bias == "zeros"
    assert [RECIPES[name].output_bias for name in ("original", "default")] == ["zeros", "mean"]
    with pytest.raises(InvalidValueError, match=r"output_bias.*'mean' or 'zeros'.*'white'"):
        VAE(output_bias="white")


def test_a_decoder_of_ones_own_is_left_as_it_is():
    decoder = networks.dense_decoder(2, (8, 8), (16,), seed=0)
    before = [weight.numpy() for weight in decoder.weights]
    vae = begun(blobs(40), "bernoulli", decoder=decoder)
    for weight, value in zip(vae.decoder.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("network", "likelihood"),
    [
        ("dense", "bernoulli"),
        pytest.param("conv", "gaussian", marks=pytest.mark.slow),
        pytest.param("dense", "gaussian", marks=pytest.mark.slow),
        pytest.param("conv", "bernoulli", marks=pytest.mark.slow),
    ],
)
def test_generated_pictures_are_as_bright_as_those_trained_on(network, likelihood):
    x = light_pictures(200, 16)
    vae = VAE(likelihood=likelihood, network=network, seed=0)
    vae.compile(keras.optimizers.Adam(2e-3), jit_compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae.fit(x, epochs=60, batch_size=50, verbose=0, callbacks=[KLWarmup(60)])
    assert vae.generate(100, seed=0).mean() == pytest.approx(x.mean() / 255, abs=0.1)


def codes_of(scale, shift=0.0):
    """A model whose codes have this standard deviation over the images, and this mean."""
    x = blobs(60)
    vae = begun(x > 100, "bernoulli")
    last = vae.encoder.get_layer("z_mean_and_log_var")
    mean = vae.encode(x > 100)[0]
    last.kernel.assign(last.kernel.numpy() * np.r_[scale / mean.std(0), 0, 0])
    last.bias.assign(np.r_[shift - scale * mean.mean(0) / mean.std(0), -6, -6])
    return vae, x > 100


@pytest.mark.parametrize(
    ("scale", "shift", "far"),
    [(1.0, 0.0, False), (3.0, 0.0, True), (0.2, 0.0, True), (1.0, 2.0, True)],
)
@pytest.mark.parametrize("patience", [1, 4])  # after a warm-up of 2 steps; in all
def test_codes_that_have_left_the_prior_are_named_once(scale, shift, far, patience):
    (vae, x), monitor = codes_of(scale, shift), LatentMonitor(patience)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hooks = [monitor, KLWarmup(2)]
        history = vae.fit(x, epochs=4, batch_size=60, verbose=0, callbacks=hooks).history
    said = [str(w.message) for w in caught if w.category is PriorMismatchWarning]
    z_mean, z_log_var = (part.astype("float64") for part in vae.encode(x))
    variance = z_mean.var(0) + np.exp(z_log_var).mean(0)
    gap = 0.5 * (variance + z_mean.mean(0) ** 2 - 1 - np.log(variance)).sum()
    np.testing.assert_allclose(history["aggregate_kl"], gap, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(monitor.rows[-1]["aggregate_std"], np.sqrt(variance), rtol=1e-4)
    assert len(said) == far
    assert not far or f"by {gap:.1f} nats" in said[0]
