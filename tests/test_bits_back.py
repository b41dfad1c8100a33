"""The coder alone, with functions of NumPy in the place of a model."""

import numpy as np
import pytest
from scipy import stats

from vae_tf.applications.bits_back import BitsBack, Buckets, load_constriction

LATENT, PIXELS = 2, 12


def coder(posterior=None, probabilities=None, latent_dim=LATENT, pixels=PIXELS):
    """q(z|x) = N(0, I) and p(x = 1|z) = ½, where nothing else is given."""
    zeros, ones = np.zeros(latent_dim), np.ones(latent_dim)
    return BitsBack(
        posterior or (lambda image: (zeros, ones)),
        probabilities or (lambda z: np.full(pixels, 0.5)),
        (pixels,),
        latent_dim,
    )


def linear(seed=0):
    """A posterior and probabilities that depend on the image and on z."""
    random = np.random.default_rng(seed)
    up, down = random.normal(size=(PIXELS, LATENT)) / 3, 2 * random.normal(size=(LATENT, PIXELS))
    sigma = np.array([0.3, 0.6])
    return (lambda image: (image @ up, sigma)), lambda z: 1 / (1 + np.exp(-z @ down))


def check_round_trip(stack, images):
    for image in images:
        stack.push(image)
    for image in images[::-1]:
        np.testing.assert_array_equal(stack.pop(), image)
    assert stack.is_at_its_beginning()


def test_what_is_pushed_is_popped_the_last_first():
    check_round_trip(coder(*linear()), np.random.default_rng(1).random((50, PIXELS)) < 0.4)


def test_a_new_stack_is_at_its_beginning_and_no_other_is():
    stack = coder()
    assert stack.is_at_its_beginning()
    stack.push(np.zeros(PIXELS))
    assert not stack.is_at_its_beginning()


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-30, 1 - 1e-9])
@pytest.mark.parametrize("value", [0, 1])
def test_pixels_that_the_model_holds_impossible_come_back(p, value):
    stack = coder(probabilities=lambda z: np.full(PIXELS, p))
    check_round_trip(stack, np.full((20, PIXELS), value))


@pytest.mark.parametrize("mean", [0.0, -1e6, 1e6, 3.2])
@pytest.mark.parametrize("sigma", [1e-30, 1e-3, 1e3, 1e30])
def test_codes_of_any_place_and_width_come_back(mean, sigma):
    stack = coder(lambda image: (np.full(LATENT, mean), np.full(LATENT, sigma)))
    check_round_trip(stack, np.random.default_rng(0).random((20, PIXELS)) < 0.5)


def test_the_stack_grows_by_the_entropy_of_the_pixels():
    # q(z|x) = p(z): each code takes away what it brings, and −log2 p(x) is left.
    p = np.random.default_rng(0).uniform(0.01, 0.5, 100)
    images = np.random.default_rng(1).random((500, 100)) < p
    stack = coder(probabilities=lambda z: p, pixels=100)
    before = stack.num_bits
    for image in images:
        stack.push(image)
    expected = -np.log2(np.where(images, p, 1 - p)).sum()
    assert stack.num_bits - before == pytest.approx(expected, rel=1e-3)


def test_the_stack_grows_by_the_elbo_even_where_codes_are_far_from_the_prior():
    posterior, probabilities = linear()
    images = np.random.default_rng(2).random((4000, PIXELS)) < 0.3
    stack = coder(posterior, probabilities)
    before = stack.num_bits
    for image in images:
        stack.push(image)
    # The reconstruction's expectation by Gauss-Hermite quadrature, the KL in closed form.
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    means, sigma = posterior(images)
    z = means[:, None, None] + sigma * np.stack(np.meshgrid(nodes, nodes), axis=-1)
    p, x = probabilities(z), images[:, None, None]
    log_p = np.log(np.where(x, p, 1 - p)).sum(axis=-1) @ weights @ weights / (2 * np.pi)
    kl = 0.5 * (sigma**2 + means**2 - 1 - 2 * np.log(sigma)).sum(axis=-1)
    expected = (kl - log_p).sum() / np.log(2)
    # A draw of z an image: the sum has a standard deviation of 0.6 %.
    assert stack.num_bits - before == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize(("mean", "sigma"), [(0.7, 0.05), (-1.5, 0.4), (0.0, 1.0)])
def test_codes_are_drawn_from_the_posterior(mean, sigma):
    constriction, buckets = load_constriction(), Buckets()
    words = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    stack = constriction.stream.stack.AnsCoder(words)
    model = buckets.model(mean, sigma, constriction.stream.model.CustomModel)
    drawn = buckets.centres[stack.decode(model, 20_000)]
    width = np.sqrt(2 * np.pi) / buckets.num * np.exp(mean**2 / 2)  # of a bucket
    assert width < sigma / 5
    assert stats.kstest(drawn, stats.norm(mean, sigma).cdf).pvalue > 0.01
    # The library gives each value that it knows of a probability; one far away would spoil an image.
    assert abs(drawn - mean).max() < 8 * sigma + 10 * width


def test_the_buckets_have_the_same_mass():
    buckets = Buckets(4)
    np.testing.assert_allclose(stats.norm.cdf(buckets.centres), (np.arange(16) + 0.5) / 16)


def test_a_model_that_gives_no_number_is_refused():
    broken = coder(lambda image: (np.full(LATENT, np.nan), np.ones(LATENT)))
    with pytest.raises(ValueError, match=r"q\(z\|x\)"):
        broken.push(np.zeros(PIXELS))
    broken = coder(probabilities=lambda z: np.full(PIXELS, np.nan))
    with pytest.raises(ValueError, match=r"p\(x\|z\)"):
        broken.push(np.zeros(PIXELS))


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(ValueError, match=r"vae_tf\[compress\]"):
        coder()
