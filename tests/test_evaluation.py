"""Evaluation of a VAE against closed forms, quadrature and second derivations."""

import math
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from linear_models import POINTS, closed_form, linear_vae
from scipy import integrate, stats
from scipy.special import logsumexp

from vae_tf import VAE, evaluation, plots
from vae_tf.errors import InvalidValueError
from vae_tf.evaluation import (
    LogLikelihood,
    latent_statistics,
    likelihood,
    log_likelihood,
    neighbour_accuracy,
)


def error_of_mean(errors):
    """Of a mean over images, each with an independent error."""
    return math.sqrt((errors**2).sum()) / len(errors)


@pytest.fixture(scope="module")
def linear():
    return linear_vae(matched=False)


@pytest.fixture(scope="module")
def bits():
    """A small VAE that has learned a little of binary images, and these."""
    x = blobs(200, (6, 6)) > np.random.default_rng(1).integers(0, 255, (200, 6, 6))
    model = VAE(latent_dim=2, hidden_units=(16,), activation="tanh", seed=8)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, epochs=20, batch_size=50, verbose=0)
    return model, x


@pytest.fixture
def table(monkeypatch):
    """Log-weights of 300 draws for 4 images, in place of a model's; their `exp` would overflow."""
    values = np.random.default_rng(0).normal([-700, 300, -1700, -695], 2, (300, 4))

    def sampler(model, seed):
        return lambda x, numbers, _, first, count: values[first : first + count][:, numbers]

    monkeypatch.setattr(likelihood, "_sampler", sampler)
    return values


@pytest.mark.parametrize("matched", [True, False])
def test_log_likelihood_of_a_linear_model_is_exact_within_its_error(matched):
    """By the delta method log mean(w) has the error sd(w)/(mean(w)·√K), here taken of other draws.

    An image may be off by 4 errors, their mean by 3. A matched q has equal weights, no error but
    that of float32, 1e-6 of some tens of nats; all its draws are effective.
    """
    model, num_samples = linear_vae(matched), 2000
    exact = closed_form(model, POINTS)
    result = log_likelihood(model, POINTS, num_samples, seed=1)
    log_weights = np.float64(model.log_weights(POINTS, num_samples, seed=2))
    w = np.exp(log_weights - log_weights.max(axis=0))
    errors = w.std(axis=0, ddof=1) / w.mean(axis=0) / math.sqrt(num_samples)
    assert np.all(np.abs(result.per_image - exact.log_p) < 4 * errors + 1e-4)
    assert abs(result.estimate.mean - exact.log_p.mean()) < 3 * error_of_mean(errors) + 1e-4
    size = result.effective_sample_size
    if matched:
        assert errors.max() < 1e-6
        np.testing.assert_allclose(size, num_samples, rtol=1e-6)
    else:
        assert 0.005 < errors.min() < errors.max() < 0.1
        assert np.all((size > 1) & (size < 0.99 * num_samples))


def test_the_curve_rises_from_the_elbo_to_the_log_likelihood(linear):
    """Each K divides the next, so that by Jensen's inequality the same draws give it no less."""
    exact = closed_form(linear, POINTS)
    curve = log_likelihood(linear, POINTS, 2000, seed=3).curve
    assert list(curve) == [1, 5, 50, 500, 2000]
    means = np.array([point.mean for point in curve.values()])
    assert np.all(np.diff(means) > 0)
    spread = np.float64(linear.log_weights(POINTS, 2000, seed=4)).std(axis=0)
    noise = error_of_mean(spread / math.sqrt(2000))
    assert abs(means[0] - exact.elbo.mean()) < 3 * noise
    assert means[1] - means[0] > 10 * noise  # the gap is not one of the noise
    assert means[-1] < exact.log_p.mean() + 3 * noise


def test_the_gap_of_the_elbo_is_the_kl_to_the_posterior(linear):
    """log p(x) = ELBO + KL(q(z|x) ‖ p(z|x)): in float64, then with the mean of the log-weights."""
    exact = closed_form(linear, POINTS)
    np.testing.assert_allclose(exact.elbo + exact.gap, exact.log_p, rtol=1e-10)
    log_weights = np.float64(linear.log_weights(POINTS, 4000, seed=5))
    errors = log_weights.std(axis=0, ddof=1) / math.sqrt(4000)
    assert exact.gap.min() > 4 * errors.max()
    assert np.all(np.abs(log_weights.mean(axis=0) + exact.gap - exact.log_p) < 4 * errors)


def test_log_likelihood_against_quadrature(bits):
    """log ∫ p(x|z) p(z) dz on a grid. n effective draws of 5000 have an error of √(1/n − 1/5000)."""
    model, x = bits[0], bits[1][:12]
    coarse, fine = (_log_integral(model, x, num) for num in (201, 401))
    np.testing.assert_allclose(coarse, fine, atol=1e-5)
    result = log_likelihood(model, x, num_samples=5000, seed=1)
    errors = np.sqrt(1 / result.effective_sample_size - 1 / 5000)
    assert errors.max() < 0.1
    assert np.all(np.abs(result.per_image - fine) < 4 * errors + 1e-4)
    assert abs(result.estimate.mean - fine.mean()) < 3 * result.sampling_error < 0.05
    assert fine.mean() - result.curve[1].mean > 0.05  # the ELBO would not pass


def _log_integral(model, x, num):
    axis, step = np.linspace(-7, 7, num, retstep=True)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    logits = np.float64(model.decode(tf.constant(z, tf.float32))).reshape(len(z), -1)
    log_prob = logits @ x.reshape(len(x), -1).T - np.logaddexp(0, logits).sum(1, keepdims=True)
    log_prior = stats.norm.logpdf(z).sum(1, keepdims=True)
    return logsumexp(log_prob + log_prior, axis=0) + 2 * math.log(step)


def test_the_curve_is_drawn_with_the_errors_of_the_differences(linear):
    result = log_likelihood(linear, POINTS, 50, seed=1)
    axes = plots.likelihood_curve(result.curve, result.gaps).axes[0]
    (bars,) = axes.containers
    line, _, (segments,) = bars
    np.testing.assert_allclose(
        np.float64(line.get_ydata()), [point.mean for point in result.curve.values()]
    )
    lengths = [float(np.ptp(segment[:, 1])) / 2 for segment in segments.get_segments()]
    errors = [result.gaps[k].standard_error for k in (1, 5)]
    np.testing.assert_allclose(lengths, [*errors, 0], atol=1e-12)
    assert max(errors) < result.estimate.standard_error / 2
    assert "difference to K = 50" in axes.get_title()


@pytest.mark.parametrize("samples", [300, 100, 50])
def test_estimates_and_effective_sample_size_against_numpy(table, linear, monkeypatch, samples):
    """Whether all draws are held at once or not: 100 and 50 are whole groups of each K."""
    monkeypatch.setattr(likelihood, "SAMPLES", samples)
    result = log_likelihood(linear, POINTS[:4], 300, batch_size=3, curve=(1, 5, 50))
    np.testing.assert_allclose(result.per_image, logsumexp(table, axis=0) - math.log(300))
    w = np.exp(table - table.max(axis=0))
    np.testing.assert_allclose(result.effective_sample_size, w.sum(0) ** 2 / (w**2).sum(0))
    for k in (1, 5, 50):
        groups = (logsumexp(table.reshape(-1, k, 4), axis=1) - math.log(k)).mean(axis=0)
        assert result.curve[k].mean == pytest.approx(groups.mean(), rel=1e-12)
        assert result.curve[k].standard_error == pytest.approx(stats.sem(groups), rel=1e-9)
        below = logsumexp(table, axis=0) - math.log(300) - groups  # each image's own difference
        assert result.gaps[k].mean == pytest.approx(below.mean(), rel=1e-9)
        assert result.gaps[k].standard_error == pytest.approx(stats.sem(below), rel=1e-9)
    assert result.gaps.keys() == {1, 5, 50}


def test_the_curve_where_the_last_draws_are_less_than_a_group(table, linear, monkeypatch):
    """270 draws, held 100 at a time: of the last 70 no group of 100 can be made."""
    monkeypatch.setattr(likelihood, "SAMPLES", 100)
    curve = log_likelihood(linear, POINTS[:4], 270, curve=(1, 100)).curve
    groups = logsumexp(table[:200].reshape(2, 100, 4), axis=1) - math.log(100)
    assert curve[100].mean == pytest.approx(groups.mean(), rel=1e-12)
    assert curve[1].mean == pytest.approx(table[:270].mean(), rel=1e-12)


def test_the_error_of_the_draws_is_that_of_runs_with_other_seeds(linear):
    """80 runs on the same images: their spread has an error of 8 %."""
    found = log_likelihood(linear, POINTS, 200, seed=1).sampling_error
    log_weights = np.float64(linear.log_weights(POINTS, 80 * 200, seed=2)).reshape(80, 200, -1)
    means = (logsumexp(log_weights, axis=1) - math.log(200)).mean(axis=1)
    assert found == pytest.approx(means.std(ddof=1), rel=0.25)


def test_the_standard_error_holds_the_error_of_the_draws_once():
    """2000 data sets of 40 images with 8 draws each, whose noise is as large as the images' spread."""
    random = np.random.default_rng(0)
    log_p = random.normal(-100, 0.5, (2000, 1, 40))
    log_weights = log_p + random.normal(-0.98, 1.4, (2000, 8, 40))  # E w = p
    per_image = logsumexp(log_weights, axis=1) - math.log(8)
    assert np.var(per_image - log_p[:, 0]) > 0.5**2
    sizes = np.exp(2 * logsumexp(log_weights, axis=1) - logsumexp(2 * log_weights, axis=1))
    pairs = zip(per_image, sizes, strict=True)
    results = [LogLikelihood(8, each, {}, {}, size) for each, size in pairs]
    reported = np.sqrt(np.mean([result.estimate.standard_error**2 for result in results]))
    assert reported == pytest.approx(per_image.mean(axis=1).std(), rel=0.05)
    alone = (per_image - log_p[:, 0]).mean(axis=1).std()
    delta = np.sqrt(np.mean([result.sampling_error**2 for result in results]))
    assert 0.6 * alone < delta < alone  # of so few effective draws too little is known
    assert results[0].few == 40


@pytest.mark.slow
def test_figures_do_not_depend_on_batches_or_chunks(linear, monkeypatch):
    """The draws are the same; what differs is float32's rounding of some tens of nats."""

    def figures(x=POINTS, **arguments):
        result = log_likelihood(linear, x, 60, **arguments)
        return np.stack([result.per_image, result.effective_sample_size])

    whole = figures(batch_size=len(POINTS))
    assert whole.shape == (2, len(POINTS))
    np.testing.assert_array_equal(figures(batch_size=len(POINTS)), whole)
    for batch_size in (1, 7, 20):
        np.testing.assert_allclose(figures(batch_size=batch_size), whole, rtol=1e-4)
    assert np.all(figures(seed=1)[0] != whole[0])
    assert len(np.unique(figures(np.repeat(POINTS[:1], 6, axis=0))[0])) == 6
    monkeypatch.setattr(likelihood, "SAMPLES", 25)
    monkeypatch.setattr(likelihood, "ROWS", 48)
    np.testing.assert_allclose(figures(batch_size=7, curve=()), whole, rtol=1e-4)


def test_ctrl_c_gives_the_images_done_so_far(linear, monkeypatch):
    def progress(done, of):
        assert of == 23
        if done == 14:
            raise KeyboardInterrupt

    result = log_likelihood(linear, POINTS, 20, batch_size=7, progress=progress)
    whole = log_likelihood(linear, POINTS, 20, batch_size=7).per_image
    np.testing.assert_array_equal(result.per_image, whole[:14])
    assert result.curve[20].mean == pytest.approx(whole[:14].mean())

    monkeypatch.setattr(likelihood, "_batch", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        log_likelihood(linear, POINTS, 20)


def test_elbo_and_its_terms_against_the_closed_form(linear):
    """The KL is exact; 400 draws have an error of their own, little against that of 23 images."""
    exact = closed_form(linear, POINTS)
    found = evaluation.elbo(linear, POINTS, num_samples=400, seed=1, batch_size=10)
    noise = 3 * error_of_mean(exact.spread / math.sqrt(400))
    for name, values in exact.terms.items():
        absolute, relative = (1e-5, 1e-5) if name == "kl_loss" else (noise, 0.05)
        assert found[name].mean == pytest.approx(values.mean(), abs=absolute)
        assert found[name].standard_error == pytest.approx(stats.sem(values), rel=relative)
    assert math.isnan(evaluation.elbo(linear, POINTS[:1])["kl_loss"].standard_error)


def test_grey_values_have_an_elbo_and_no_log_likelihood(bits):
    model, x = bits
    for grey in (blobs(8, (6, 6)), np.full((8, 6, 6), 0.5)):
        with pytest.raises(InvalidValueError, match="no log-likelihood"):
            log_likelihood(model, grey, 10)
        assert np.isfinite(evaluation.elbo(model, grey)["elbo"].mean)
    forms = [x[:4], x[:4].astype("float32"), np.uint8(255) * x[:4]]
    figures = [log_likelihood(model, form, 10).per_image for form in forms]
    np.testing.assert_allclose(figures[1:], [figures[0]] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_samples", 0), ("batch_size", 0), ("batch_size", -1), ("seed", -1), ("x", POINTS[:, :4])],
)
@pytest.mark.parametrize("function", [log_likelihood, evaluation.elbo])
def test_refusals(linear, function, argument, value):
    with pytest.raises(InvalidValueError, match=f"'{argument}'"):
        function(linear, **{"x": POINTS, argument: value})


def test_latent_statistics_against_quadrature():
    """Three posteriors of one dimension; what is drawn has an error of its own."""
    means, sigmas = np.array([-1.0, 0.5, 0.8]), np.array([0.5, 0.3, 1.1])
    found = latent_statistics(means[:, None], 2 * np.log(sigmas)[:, None], seed=1)
    posteriors = [*map(stats.norm, means, sigmas)]

    def mixture(z):
        return np.mean([q.pdf(z) for q in posteriors])

    def integral(function):
        return integrate.quad(function, -8, 8)[0]

    def kl(q, p):
        return integral(lambda z: q(z) * np.log(q(z) / p(z)))

    mean_kl = np.mean([kl(q.pdf, stats.norm.pdf) for q in posteriors])
    assert found.kl_per_dimension == pytest.approx([mean_kl], rel=1e-6)
    information = np.mean([kl(q.pdf, mixture) for q in posteriors])
    drawn = {found.aggregate_kl: kl(mixture, stats.norm.pdf), found.mutual_information: information}
    for estimate, expected in drawn.items():
        assert abs(estimate.mean - expected) < 3 * estimate.standard_error < 0.1
    assert found.aggregate_mean == pytest.approx([0.1])
    variance = integral(lambda z: (z - 0.1) ** 2 * mixture(z))
    assert found.aggregate_variance == pytest.approx([variance])


def test_latent_statistics_by_hand():
    """Active units beside the threshold 0.01; codes that tell nothing, or which image it is."""
    z_mean = 7 + np.array([[1.0], [-1.0]]) * np.sqrt([0.0, 0.0099, 0.0101, 1.0])
    assert latent_statistics(z_mean, np.zeros((2, 4))).active_units == 2
    nothing = latent_statistics(np.zeros((50, 3)), np.zeros((50, 3)))
    assert nothing.mutual_information.mean == pytest.approx(0, abs=1e-12)
    assert nothing.aggregate_kl.mean == pytest.approx(0, abs=1e-12)
    apart = 10.0 * np.arange(50)[:, None]
    everything = latent_statistics(apart, np.full_like(apart, math.log(1e-4)))
    assert everything.mutual_information.mean == pytest.approx(math.log(50), abs=1e-6)
    assert everything.log_num == pytest.approx(math.log(50))


def test_information_and_aggregate_kl_add_up_to_the_kl():
    z_mean, z_log_var = np.random.default_rng(0).normal(0, 0.7, (2, 100, 4))
    found = latent_statistics(z_mean, z_log_var)
    information, rest = found.mutual_information, found.aggregate_kl
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(1).mean()
    error = 3 * (information.standard_error + rest.standard_error)
    assert abs(information.mean + rest.mean - kl) < error < kl / 4


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_reconstruction_error_against_numpy(bits, batch_size):
    grey = blobs(30, (6, 6))
    logits = np.float64(bits[0].decode(bits[0].encode(grey)[0]))
    p, x = 1 / (1 + np.exp(-logits)), grey / 255
    mse = ((p - x) ** 2).mean((1, 2))
    entropy = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum((1, 2))
    found = evaluation.reconstruction_error(bits[0], grey, batch_size)
    for name, values in {"mse": mse, "cross_entropy": entropy}.items():
        assert found[name].mean == pytest.approx(values.mean(), rel=1e-5)
        assert found[name].standard_error == pytest.approx(stats.sem(values), rel=1e-4)


def test_neighbours_by_hand():
    z_train, y_train = np.array([[0.0], [1.0], [5.0], [5.5]]), np.array([3, 7, 7, 7])
    asked = np.array([[0.4], [0.6], [100.0], [5.0]])  # nearest: 3, 7, 7, 7
    assert neighbour_accuracy(z_train, y_train, asked, np.array([3, 3, 7, 7])).mean == 0.75
    found = neighbour_accuracy(z_train, y_train, z_train, y_train)  # without its own: 7, 3, 7, 7
    assert found.mean == 0.5
    assert found.standard_error == pytest.approx(math.sqrt(0.25 / 3))
    for labels, own in [(None, y_train), (y_train, None)]:
        with pytest.raises(InvalidValueError, match="labels"):
            neighbour_accuracy(z_train, labels, asked, own)
