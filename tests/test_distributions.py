"""Each distribution against scipy, quadrature and sums; its samples; and what float32 does to it."""

import math

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from vae_tf.distributions import (
    BINARY,
    BYTES,
    INTERVAL,
    REAL,
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Normal,
    PixelNormal,
    gaussian_kl,
    gaussian_log_prob,
)

GREY = np.arange(256) / 255


class NumpyNoise:
    """The noise that `sample` asks for, from NumPy; uniform numbers are above 0 and at most 1."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)

    def normal(self, like, num_samples=None):
        shape = like.shape if num_samples is None else (num_samples, *like.shape)
        return tf.constant(self.random.normal(size=shape), tf.float32)

    def uniform(self, like, num_samples=None):
        return tf.constant(1 - self.random.random(like.shape), tf.float32)


# Which images fit.


@pytest.mark.parametrize(
    ("support", "x", "accepted", "contained"),
    [
        (BINARY, np.float32([[0, 1]]), True, True),
        (BINARY, np.float32([[0, 0.5]]), True, False),
        (BINARY, np.uint8([[0, 255]]), True, True),
        (BINARY, np.uint8([[0, 1]]), True, False),
        (BINARY, np.array([[True, False]]), True, True),
        (BINARY, np.float32([[0, 1.01]]), False, False),
        (INTERVAL, np.float32([[0, 0.3, 1]]), True, True),
        (INTERVAL, np.uint8([[0, 7, 255]]), True, True),
        (INTERVAL, np.float32([[-0.01]]), False, False),
        (INTERVAL, np.float32([[np.nan]]), False, False),
        (BYTES, np.uint8([[0, 7, 255]]), True, True),
        (BYTES, GREY[None].astype("float32"), True, True),
        (BYTES, GREY[None].astype("float16"), True, True),
        (BYTES, GREY[None], True, True),
        (BYTES, np.array([[True, False]]), True, True),
        (BYTES, np.float32([[0.3, 0.5]]), True, False),
        (REAL, np.float32([[-7, 300]]), True, True),
        (REAL, np.uint8([[0, 7, 255]]), True, True),
        (REAL, np.float32([[np.inf]]), False, False),
    ],
)
def test_which_images_a_support_accepts_and_contains(support, x, accepted, contained):
    assert support.accepts(x) is accepted
    assert support.contains(x) is contained


def test_samples_are_points_of_the_support():
    parameters = np.float32(np.random.default_rng(0).normal(0, 2, (50, 4, 4)))
    for law in _pixel_laws(parameters):
        x = np.asarray(law.sample(NumpyNoise()))
        assert x.shape == (50, 4, 4)
        assert law.support.contains(x), type(law)


# Normal.


def test_kl_of_the_worked_example():
    kl = float(gaussian_kl([[1.5]], [[math.log(0.25)]])[0])
    assert kl == pytest.approx(1.4431, abs=5e-5)
    nll = -float(gaussian_log_prob([2.0], [1.6]))
    assert nll == pytest.approx(0.9989, abs=5e-5)
    assert nll + kl == pytest.approx(2.4420, abs=1e-4)  # published as the sum of rounded terms


PAIRS = [(0.0, 0.0, 0.0, 0.0), (1.5, -1.4, 0.0, 0.0), (-2.0, 0.7, 1.0, 0.4), (0.3, -6.0, 0.2, -5.0)]


@pytest.mark.parametrize(("mean", "log_var", "other_mean", "other_log_var"), PAIRS)
def test_kl_against_quadrature(mean, log_var, other_mean, other_log_var):
    scale = math.exp(log_var / 2)
    q = scipy.stats.norm(mean, scale)
    p = scipy.stats.norm(other_mean, math.exp(other_log_var / 2))
    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - 12 * scale, mean + 12 * scale
    )
    kl = Normal([[mean]], [[log_var]]).kl(Normal(other_mean, other_log_var))
    assert kl.shape == (1, 1)
    assert float(kl[0, 0]) == pytest.approx(expected, abs=1e-5)
    if other_mean == other_log_var == 0:
        assert float(Normal([[mean]], [[log_var]]).kl()[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_kl_sums_over_dimensions_and_not_over_the_batch():
    z_mean, z_log_var = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    single = [[float(gaussian_kl([[m]], [[v]])[0]) for m, v in zip(*rows, strict=True)]
              for rows in zip(z_mean, z_log_var, strict=True)]  # fmt: skip
    np.testing.assert_allclose(gaussian_kl(z_mean, z_log_var), np.sum(single, 1), rtol=1e-5)
    np.testing.assert_allclose(gaussian_kl(z_mean, z_log_var, axis=None), single, rtol=1e-5)
    np.testing.assert_allclose(Normal(z_mean, z_log_var).kl(), single, rtol=1e-5)


def test_kl_by_monte_carlo():
    """The mean of log q − log p over draws from q, within four standard errors of the closed form."""
    q = Normal(np.float32([[0.7, -1.0]]), np.float32([[-1.0, 0.3]]))
    p = Normal(np.float32([[0.2, 0.1]]), np.float32([[0.5, -0.2]]))
    z, log_q = q.sample_with_log_prob(NumpyNoise(), num_samples=40000)
    ratio = np.asarray(log_q - p.log_prob(z))
    error = float(ratio.std()) / math.sqrt(ratio.size)
    assert float(tf.reduce_sum(q.kl(p))) == pytest.approx(float(ratio.mean()), abs=4 * error)


def test_normal_log_prob_against_scipy():
    random = np.random.default_rng(1)
    z, mean, log_var = random.normal(size=(3, 6, 4)).astype("float32")
    expected = scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(-1)
    np.testing.assert_allclose(Normal(mean, log_var).log_prob(z), expected, rtol=1e-5)
    np.testing.assert_allclose(gaussian_log_prob(z, mean, log_var), expected, rtol=1e-5)
    samples = random.normal(size=(7, 6, 4))
    expected = scipy.stats.norm(0, 1).logpdf(samples).sum(-1)
    np.testing.assert_allclose(Normal(0.0, 0.0).log_prob(samples), expected, rtol=1e-12)


def test_log_prob_of_draws_is_that_of_the_drawn_points():
    mean, log_var = np.random.default_rng(2).normal(size=(2, 6, 4))
    z, log_q = Normal(mean, log_var).sample_with_log_prob(NumpyNoise(), num_samples=50)
    assert z.shape == (50, 6, 4)
    expected = scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(-1)
    np.testing.assert_allclose(log_q, expected, rtol=1e-6)
    assert Normal(mean, log_var).sample(NumpyNoise()).shape == (6, 4)


@pytest.mark.parametrize("log_var", [-200.0, -36.0, -30.0, 100.0])
def test_log_prob_of_draws_from_peaked_and_wide_normals(log_var):
    """ε is known: z itself is rounded to μ at log σ² = −36, and overflows nowhere."""
    q = Normal(tf.fill((1000, 3), 0.7), tf.fill((1000, 3), log_var))
    z, log_q = q.sample_with_log_prob(NumpyNoise(5))
    epsilon = NumpyNoise(5).normal(z).numpy().astype("float64")
    expected = (scipy.stats.norm.logpdf(epsilon) - 0.5 * log_var).sum(-1)
    np.testing.assert_allclose(log_q, expected, rtol=1e-5)
    assert np.isfinite(z).all()


@pytest.mark.parametrize("log_var", [-200.0, -100.0, 100.0])
def test_log_prob_at_the_mean_of_a_peaked_normal_is_a_number(log_var):
    mean, log_var = tf.fill((1, 2), 0.7), tf.fill((1, 2), log_var)
    with tf.GradientTape() as tape:
        tape.watch([mean, log_var])
        found = Normal(mean, log_var).log_prob(0.7 + tf.zeros((1, 2)))
    np.testing.assert_allclose(found, -log_var[:, 0] - math.log(2 * math.pi), rtol=1e-6)
    to_mean, to_log_var = tape.gradient(found, [mean, log_var])
    np.testing.assert_allclose(to_mean, np.zeros((1, 2)))
    np.testing.assert_allclose(to_log_var, np.full((1, 2), -0.5))


def test_pixel_normal_against_scipy():
    random = np.random.default_rng(0)
    mean, x = random.normal(0, 3, (2, 4, 6, 5))
    for log_var in (np.float64(-0.8), random.normal(size=(6, 5)), random.normal(size=(4, 6, 5))):
        expected = scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(x).sum((1, 2))
        np.testing.assert_allclose(PixelNormal(mean, log_var).log_prob(x), expected, rtol=1e-10)


# Bernoulli.


def test_bernoulli_against_scipy():
    random = np.random.default_rng(0)
    logits, x = random.normal(0, 3, (4, 6, 5, 1)), random.integers(0, 2, (4, 6, 5, 1))
    expected = scipy.stats.bernoulli(1 / (1 + np.exp(-logits))).logpmf(x).sum((1, 2, 3))
    np.testing.assert_allclose(Bernoulli(np.float32(logits)).log_prob(x), expected, rtol=1e-5)
    both = [np.exp(Bernoulli([[2.5]]).log_prob([[value]])) for value in (0.0, 1.0)]
    assert float(sum(both)[0]) == pytest.approx(1)


def test_cross_entropy_of_grey_values_against_a_second_derivation():
    random = np.random.default_rng(1)
    logits, x = random.normal(0, 3, (4, 30)), random.uniform(0, 1, (4, 30))
    p = 1 / (1 + np.exp(-logits))
    expected = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(1)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected, rtol=1e-10)


def test_cross_entropy_stays_finite_where_probabilities_round_to_0_and_1():
    logits = tf.constant([[1000.0, -1000.0], [1000.0, -1000.0]])
    x = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), [0.0, -2000.0])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradient_of_the_bernoulli_is_the_pixel_less_its_mean(jit_compile):
    """∂ log p(x)/∂l = x − σ(l), at l = 0 too, which a new decoder gives."""

    @tf.function(jit_compile=jit_compile)
    def gradient(logits, x):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = Bernoulli(logits).log_prob(x)
        return tape.gradient(value, logits)

    logits = np.repeat([-200.0, -3.0, 0.0, 1e-8, 2.0, 200.0], 3).astype("float32")[:, None]
    x = np.tile([0.0, 0.3, 1.0], 6).astype("float32")[:, None]
    expected = x - 1 / (1 + np.exp(-logits.astype("float64")))
    np.testing.assert_allclose(gradient(*map(tf.constant, (logits, x))), expected, atol=1e-6)


class One:
    """Uniform numbers are in (0, 1]: one of them may be 1, and none is 0."""

    def uniform(self, like):
        return tf.ones_like(like)


def test_samples_where_the_uniform_number_is_1():
    logits = np.float32([[-200, 0, 1, 200]])
    np.testing.assert_array_equal(Bernoulli(logits).sample(One()), [[0, 0, 0, 1]])
    np.testing.assert_array_equal(ContinuousBernoulli(logits).sample(One()), [[1, 1, 0, 0]])
    np.testing.assert_array_equal(
        DiscretizedLogistic(logits, logits).sample(One()), np.ones((1, 4))
    )


# Continuous Bernoulli.

LOGITS = [-40.0, -5.0, -0.7, -0.4999, -1e-3, 0.0, 1e-6, 0.02, 0.5, 0.51, 2.0, 30.0]


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(logit):
    law = ContinuousBernoulli(np.float64([[logit]]))
    total, _ = scipy.integrate.quad(lambda x: math.exp(law.log_prob(np.float64([[x]]))[0]), 0, 1)
    mean, _ = scipy.integrate.quad(lambda x: x * math.exp(law.log_prob(np.float64([[x]]))[0]), 0, 1)
    assert total == pytest.approx(1, abs=1e-8)
    assert float(law.mean()[0, 0]) == pytest.approx(mean, abs=1e-8)


@pytest.mark.parametrize("logit", [-20.0, -3.0, -0.3, 0.2, 1.0, 9.0])
def test_continuous_bernoulli_is_that_of_the_paper(logit):
    """log C(λ) λ^x (1 − λ)^(1 − x) with C = 2 atanh(1 − 2λ)/(1 − 2λ), which is exact away from ½."""
    p = 1 / (1 + math.exp(-logit))
    x = np.linspace(0, 1, 7)
    log_c = math.log(2 * math.atanh(1 - 2 * p) / (1 - 2 * p))
    expected = log_c + x * math.log(p) + (1 - x) * math.log1p(-p)
    found = ContinuousBernoulli(np.full((7, 1), logit)).log_prob(x[:, None])
    np.testing.assert_allclose(found, expected, atol=1e-7)
    mean = p / (2 * p - 1) + 1 / (2 * math.atanh(1 - 2 * p))
    assert float(ContinuousBernoulli([[logit]]).mean()[0, 0]) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_continuous_bernoulli_is_stable_in_float32(jit_compile):
    """Value and gradient for logits of all sizes; the gradient of log p(x) in l is x − E[x]."""
    sizes = np.concatenate([[0], np.geomspace(1e-30, 1e30, 241), [0.4999, 0.5, 0.5001]])
    exact = np.concatenate([sizes, -sizes])
    logits = tf.constant(exact[:, None], tf.float32)

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(logits, x):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = ContinuousBernoulli(logits).log_prob(x)
        return value, tape.gradient(value, logits)[:, 0], ContinuousBernoulli(logits).mean()[:, 0]

    for x in (0.0, 0.3, 1.0):
        value, gradient, mean = value_and_gradient(logits, tf.fill(logits.shape, x))
        expected, expected_mean = _continuous_bernoulli(exact, x)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=5e-7)
        np.testing.assert_allclose(gradient, x - expected_mean, atol=1e-6)
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-6, atol=1e-30)


def _continuous_bernoulli(logits, x):
    """log p(x) and the mean in float64: of l·e^(l·x)/(e^l − 1), by series for small l."""
    size = np.maximum(np.abs(logits), 1e-9)
    log_c = np.log(size / -np.expm1(-size))
    end = np.where(size > 1e-3, 1 / size - 1 / np.expm1(np.minimum(size, 700)), 0.5 - size / 12)
    value = log_c - size * np.where(logits > 0, 1 - x, x)
    return value, np.where(logits > 0, 1 - end, end)


@pytest.mark.parametrize("logit", [-300.0, -4.0, -1e-3, 0.0, 0.3, 10.0])
def test_continuous_bernoulli_samples_have_its_distribution_function(logit):
    samples = ContinuousBernoulli(tf.fill((20000, 1), logit)).sample(NumpyNoise()).numpy()[:, 0]
    assert samples.min() >= 0
    assert samples.max() <= 1

    def cdf(x):
        return np.expm1(logit * x) / math.expm1(logit) if logit else x

    assert scipy.stats.kstest(samples, cdf).pvalue > 1e-4


# Discretized logistic.

SCALES = [(0.5, 0.1), (0.5, 1e-4), (0.3, 2.0), (1.4, 0.05), (-0.2, 0.3), (200.5 / 255, 1e-3)]


@pytest.mark.parametrize(("mean", "scale"), [*SCALES, (0.701, 1e-9), (0.1, 1e9)])
def test_discretized_logistic_sums_to_one(mean, scale):
    law = DiscretizedLogistic(np.full((256, 1), mean), np.full((256, 1), math.log(scale)))
    assert np.exp(law.log_prob(GREY[:, None])).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("mean", "scale"), SCALES)
def test_discretized_logistic_against_scipy(mean, scale):
    """Differences of the distribution function, taken in the lower tail, where they are exact."""
    logistic = scipy.stats.logistic(mean, scale)
    begin, end = np.r_[-np.inf, GREY[1:] - 0.5 / 255], np.r_[GREY[:-1] + 0.5 / 255, np.inf]
    upper = begin > mean
    p = np.where(
        upper, logistic.sf(begin) - logistic.sf(end), logistic.cdf(end) - logistic.cdf(begin)
    )
    law = DiscretizedLogistic(np.full((256, 1), mean), np.full((256, 1), math.log(scale)))
    found = np.asarray(law.log_prob(GREY[:, None]))
    known = p > 1e-290
    assert known.sum() > 30
    np.testing.assert_allclose(found[known], np.log(p[known]), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_discretized_logistic_is_stable_in_float32(jit_compile):
    """Value and gradients are finite for any scale, at the mean, beside it and in the far tail."""
    log_scales, x, means = np.meshgrid(
        [-200, -30, -9, -3, 0, 9, 30, 200], GREY[[0, 9, 255]], [0, 0.4, 1]
    )
    parameters = [tf.constant(a.reshape(-1, 1), tf.float32) for a in (means, log_scales)]

    @tf.function(jit_compile=jit_compile)
    def value_and_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            law = DiscretizedLogistic(*parameters)
            value = law.log_prob(x)
        return value, tape.gradient(value, parameters), law.mean()

    value, gradients, mean = value_and_gradients(tf.constant(x.reshape(-1, 1), tf.float32))
    for tensor in (value, *gradients, mean):
        assert np.isfinite(tensor).all()
    doubles = [a.reshape(-1, 1).astype("float64") for a in (means, log_scales, x)]
    exact = DiscretizedLogistic(*doubles[:2]).log_prob(doubles[2])
    np.testing.assert_allclose(value, exact, rtol=1e-4)  # x − m is rounded, and divided by s


@pytest.mark.parametrize(("mean", "scale"), [*SCALES, (0.701, 1e-9), (0.1, 1e9)])
def test_mean_of_the_discretized_logistic_is_within_half_a_byte(mean, scale):
    wide = DiscretizedLogistic(np.full((256, 1), mean), np.full((256, 1), math.log(scale)))
    exact = (np.exp(wide.log_prob(GREY[:, None])) * GREY).sum()
    for dtype in ("float32", "float64"):
        law = DiscretizedLogistic(
            np.full((1, 1), mean, dtype), np.full((1, 1), math.log(scale), dtype)
        )
        tolerance = 1e-4 if scale >= 1 / 255 else 1 / 510 + 1e-6
        assert float(law.mean()[0, 0]) == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize(("mean", "scale"), [(0.5, 0.003), (0.98, 0.01), (0.2, 0.5)])
def test_samples_of_the_discretized_logistic_have_its_probabilities(mean, scale):
    num = 20000
    law = DiscretizedLogistic(tf.fill((num, 1), mean), tf.fill((num, 1), math.log(scale)))
    counts = np.bincount(np.round(255 * law.sample(NumpyNoise())[:, 0]).astype(int), minlength=256)
    law = DiscretizedLogistic(np.full((256, 1), mean), np.full((256, 1), math.log(scale)))
    expected = num * np.exp(law.log_prob(GREY[:, None]))
    often = expected > 5
    observed = np.r_[counts[often], counts[~often].sum()]
    expected = np.r_[expected[often], expected[~often].sum() + 1e-9]
    chi2 = ((observed - expected) ** 2 / np.maximum(expected, 5)).sum()
    assert scipy.stats.chi2(len(expected) - 1).sf(chi2) > 1e-4


# All of them.


def _pixel_laws(parameters):
    yield Bernoulli(parameters)
    yield ContinuousBernoulli(parameters)
    yield PixelNormal(parameters, math.log(0.3))
    yield DiscretizedLogistic(0.5 + 0.1 * parameters, -3.0 + 0 * parameters)


def test_samples_have_the_mean():
    num = 20000
    for law in _pixel_laws(np.tile(np.float32([[-2.0, 0.0, 0.01, 1.0, 3.0]]), (num, 1))):
        samples = np.asarray(law.sample(NumpyNoise(3)))
        error = samples.std(0) / math.sqrt(num)
        bias = 1 / 510 if isinstance(law, DiscretizedLogistic) else 0
        difference = np.abs(samples.mean(0) - np.asarray(law.mean())[0])
        assert (difference <= 4 * error + bias).all(), type(law)


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_everything_is_computed_in_float32_at_least(given, computed):
    """A sum of 3,000 pixels is exact to float32, though the decoder computes in half precision."""
    parameters = keras.ops.cast(np.random.default_rng(0).normal(size=(2, 3000)), given)
    x = np.zeros((2, 3000), "float32")
    for law in (Normal(parameters, parameters), *_pixel_laws(parameters)):
        for tensor in (law.log_prob(x), law.mean(), law.sample(NumpyNoise())):
            assert tensor.dtype == computed
        wide = type(law)(*(np.float64(value) for value in _parameters(law)))
        np.testing.assert_allclose(law.log_prob(x), wide.log_prob(x), rtol=1e-5)


def _parameters(law):
    if isinstance(law, Normal):
        return law.mean(), law.log_var
    if isinstance(law, DiscretizedLogistic):
        return law._mean, law.log_scale
    return (law.logits,)


def test_bytes_are_scaled():
    x = np.uint8([[0, 40, 200, 255]])
    for law in _pixel_laws(np.float32([[0.1, -2.0, 0.4, 1.0]])):
        np.testing.assert_allclose(law.log_prob(x), law.log_prob(x / 255), rtol=1e-5)
