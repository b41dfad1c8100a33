"""Evaluation of models of every kind: what it asks of them, and what it says where they lack it."""

import json
import math

import numpy as np
import pytest
from helpers import blobs
from keras import ops
from linear_models import LATENT, POINTS, SIGMA, TwoLayers, closed_form, linear_vae
from scipy import stats
from small_models import Autoencoder

from vae_tf import VAE, Condition, Gaussian, Images, Model, evaluation
from vae_tf.distributions import Normal
from vae_tf.errors import InvalidTypeError, InvalidValueError
from vae_tf.evaluation import elbo, latent_statistics, log_likelihood

SHIFTS = np.random.default_rng(5).normal(0, 2, (3, 5)).astype("float32")
LABELS = np.arange(len(POINTS)) % 3


class Shifted(VAE):
    """p(x|z, c) = p(x − s_c|z): with its label taken away it is the model without one."""

    condition = Condition("label", num_classes=3)

    def encode(self, x, label):
        return self.encoder(x - ops.take(SHIFTS, label, axis=0))

    def decode(self, z, label):
        return self.decoder(z) + ops.take(SHIFTS, label, axis=0)


class Doubled(VAE):
    """A regularizer that is not the KL to N(0, I), and no word of the prior."""

    def regularizer(self, z_mean, z_log_var):
        return 2 * super().regularizer(z_mean, z_log_var) + 1

    def prior(self):
        return Normal(0.0, 0.0)


class Unsaid(VAE):
    def regularizer(self, z_mean, z_log_var):
        return 2 * ops.square(z_mean) + 0 * z_log_var


class LearnedPrior(VAE):
    def prior(self):
        return Normal(ops.ones((1, self.latent_dim)), ops.zeros((1, self.latent_dim)))


class Noisy(Model):
    """A loss and a term that are noise of variance 1, of three draws and of one; it claims no bound."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.likelihood = Gaussian(1.0)

    def terms(self, x, training=False):
        noise = self.noise.normal((x.shape[0], 1), 3)[..., 0] / math.sqrt(3)
        one = self.noise.normal((x.shape[0], 1))
        return {"loss": ops.sum(noise, axis=0), "noise": one[:, 0], "vectors": one}


class Impossible(TwoLayers):
    """Images with a first pixel above 0 have weight 0."""

    def log_weights(self, x, num_samples):
        return ops.where(x[:, 0] > 0, -math.inf, super().log_weights(x, num_samples))


def built(model, shape=(5,)):
    model.build((None, *shape))
    return model


def vae_with(log_var, model_class=VAE):
    """μ(x) is a linear function of x, and log σ² is the same for all."""
    model = linear_vae(False, model_class)
    head = model.encoder.get_layer("z_mean_and_log_var")
    kernel, bias = head.get_weights()
    kernel[:, LATENT:], bias[LATENT:] = 0, log_var
    head.set_weights([kernel, bias])
    return model


# The log-likelihood.


def test_two_latent_layers_have_the_log_likelihood_of_their_closed_form():
    """By the delta method, as for one layer: an image may be off by 4 errors, their mean by 3."""
    model, num = built(TwoLayers()), 4000
    result = log_likelihood(model, POINTS, num, seed=1)
    log_weights = np.float64(model.log_weights(POINTS.astype("float32"), num, seed=2))
    w = np.exp(log_weights - log_weights.max(axis=0))
    errors = w.std(axis=0, ddof=1) / w.mean(axis=0) / math.sqrt(num)
    exact = model.log_prob(POINTS)
    assert 0.005 < errors.min() < errors.max() < 0.3
    assert np.all(np.abs(result.per_image - exact) < 4 * errors)
    spread = math.sqrt((errors**2).sum()) / len(errors)
    assert abs(result.estimate.mean - exact.mean()) < 3 * spread < 0.05


def test_a_condition_is_handed_through_everything():
    model, plain = linear_vae(True, Shifted), linear_vae(True)
    moved = POINTS - SHIFTS[LABELS]
    exact = closed_form(plain, moved)
    found = log_likelihood(model, POINTS, 50, condition=LABELS)
    np.testing.assert_allclose(found.per_image, exact.log_p, rtol=1e-4)
    other = log_likelihood(model, POINTS, 50, condition=(LABELS + 1) % 3)
    assert np.abs(other.per_image - exact.log_p).max() > 1
    batches = log_likelihood(model, POINTS, 50, condition=LABELS, batch_size=7)
    np.testing.assert_allclose(batches.per_image, found.per_image, rtol=1e-4)
    terms = elbo(model, POINTS, condition=LABELS, batch_size=9)
    assert terms["kl_loss"].mean == pytest.approx(exact.kl_loss.mean(), abs=1e-4)
    codes = evaluation.codes(model, POINTS, condition=LABELS, batch_size=6)
    np.testing.assert_allclose(codes, plain.encode(moved), rtol=1e-4, atol=1e-5)
    error = evaluation.reconstruction_error(model, POINTS, condition=LABELS, batch_size=8)
    same = evaluation.reconstruction_error(plain, moved)
    assert error["mse"].mean == pytest.approx(same["mse"].mean, rel=1e-4)
    assert error["nll"].mean == pytest.approx(same["nll"].mean, rel=1e-4)


@pytest.mark.parametrize("function", [log_likelihood, elbo, evaluation.codes])
def test_a_condition_is_needed_by_a_model_that_has_one_and_by_no_other(function):
    model = linear_vae(True, Shifted)
    for condition in (None, LABELS[:5], LABELS + 1):
        with pytest.raises(InvalidValueError, match=r"'(condition|label)'"):
            function(model, POINTS, condition=condition)
    with pytest.raises(InvalidTypeError, match=r"'condition'.*VAE has no condition"):
        function(linear_vae(True), POINTS, condition=LABELS)


@pytest.mark.slow
def test_seeds_of_any_size_are_different_seeds():
    model, x = linear_vae(False), POINTS[:4]
    seeds = (0, 1, 2**32, 2**32 + 1, 2**62)
    figures = [log_likelihood(model, x, 20, seed).per_image for seed in seeds]
    assert len({tuple(figure) for figure in figures}) == 5
    bounds = {elbo(model, x, 2, seed)["elbo"].mean for seed in seeds}
    assert len(bounds) == 5
    for function in (log_likelihood, elbo):
        with pytest.raises(InvalidValueError, match=r"'seed'.*below 2\*\*63"):
            function(model, x, seed=2**63)


@pytest.mark.slow
def test_weights_of_zero_give_minus_infinity(tmp_path):
    model = built(Impossible())
    possible = POINTS[:, 0] <= 0
    assert 0 < possible.sum() < len(POINTS)
    result = log_likelihood(model, POINTS, 200)
    np.testing.assert_array_equal(np.isneginf(result.per_image), ~possible)
    np.testing.assert_array_equal(result.effective_sample_size[~possible], 0)
    assert result.effective_sample_size[possible].min() >= 1
    assert result.estimate.mean == -math.inf
    assert math.isnan(result.estimate.standard_error)
    whole = log_likelihood(built(TwoLayers()), POINTS, 200).per_image
    np.testing.assert_allclose(result.per_image[possible], whole[possible], rtol=1e-5)
    x = POINTS.astype("float32")
    found = evaluation.evaluate(
        model, Images("points", x, x), measures=["likelihood"], num_samples=9
    )
    found.write(tmp_path / "report")
    assert json.loads((tmp_path / "report/metrics.json").read_text())["likelihood"]["mean"] is None


@pytest.mark.parametrize("log_var", [-30.0, -36.0, -200.0, 40.0, 100.0])
def test_log_weights_of_posteriors_as_narrow_or_wide_as_they_come(log_var):
    """E log w = E log p(x, z) + ½ Σ_j (1 + log σ² + log 2π), where z is μ if σ is 10⁻⁶ or less.

    What is drawn is ε² alone, of variance 2 a dimension. Of a wide one it is the squares of 10⁸·ε; of
    10²¹·ε they are beyond float32, and the weight is 0.
    """
    model, num = vae_with(log_var), 4000
    curve = log_likelihood(model, POINTS, num).curve
    entropy = 0.5 * LATENT * (1 + log_var + math.log(2 * math.pi))
    if log_var > 0:
        exact = closed_form(model, POINTS).elbo.mean() if log_var < 80 else -math.inf
        assert curve[1].mean == pytest.approx(exact, rel=0.05)
        return
    w, b = (np.float64(a) for a in model.decoder.get_layer("logits").get_weights())
    z = np.float64(model.encode(POINTS)[0])
    log_p = stats.norm(z @ w + b, SIGMA).logpdf(POINTS).sum(1) + stats.norm.logpdf(z).sum(1)
    noise = math.sqrt(LATENT / 2 / num / len(POINTS))
    assert curve[1].mean == pytest.approx((log_p + entropy).mean(), abs=4 * noise + 1e-3)


def test_mixed_precision_gives_figures_of_full_precision():
    """bfloat16 has 8 bits: what the networks give is off by 1/256 or less of some tens of nats."""
    x = blobs(30, (6, 6)) > 100
    figures = []
    for dtype in ("float32", "mixed_bfloat16"):
        model = built(VAE(2, hidden_units=(8,), seed=0, dtype=dtype), (6, 6))
        result, z_mean = log_likelihood(model, x, 20), evaluation.codes(model, x)[0]
        assert (result.per_image.dtype, z_mean.dtype) == (np.float64, np.float32)
        terms = elbo(model, x)
        error = evaluation.reconstruction_error(model, x)["cross_entropy"]
        figures.append([result.estimate.mean, terms["elbo"].mean, error.mean])
    np.testing.assert_allclose(figures[1], figures[0], rtol=1 / 256)


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (lambda: built(VAE(2)), np.full((3, 5), 0.4), "grey values.*continuous_bernoulli"),
        (
            lambda: built(VAE(2, likelihood="discretized_logistic")),
            np.full((3, 5), 0.4567),
            "k/255.*0.4567",
        ),
    ],
)
def test_images_that_p_cannot_give_have_no_log_likelihood(make, x, message):
    with pytest.raises(InvalidValueError, match=f"'x'.*{message}"):
        log_likelihood(make(), x)


def test_a_model_without_log_weights_is_refused_by_name():
    with pytest.raises(InvalidTypeError, match=r"'model'.*`log_weights`.*Noisy"):
        log_likelihood(built(Noisy()), POINTS)
    with pytest.raises(InvalidTypeError, match=r"'model'.*`posterior`.*Noisy"):
        evaluation.codes(built(Noisy()), POINTS)


# Its terms.


def test_an_overridden_regularizer_is_heard():
    exact = closed_form(linear_vae(False), POINTS)
    found = elbo(linear_vae(False, Doubled), POINTS, num_samples=50)
    assert found["kl_loss"].mean == pytest.approx((2 * exact.kl_loss + LATENT).mean(), abs=1e-4)
    total = -found["reconstruction_loss"].mean - found["kl_loss"].mean
    assert found["elbo"].mean == pytest.approx(total, rel=1e-6)


def test_a_prior_of_its_own_is_in_every_figure():
    """N(1, I) in place of N(0, I): the KL is that to it, and so is log p(x)."""
    model, plain = linear_vae(False, LearnedPrior), linear_vae(False)
    z_mean, z_log_var = (np.float64(a) for a in plain.encode(POINTS))
    kl = 0.5 * (np.exp(z_log_var) + (z_mean - 1) ** 2 - 1 - z_log_var).sum(1)
    assert elbo(model, POINTS)["kl_loss"].mean == pytest.approx(kl.mean(), abs=1e-4)
    w, b = (np.float64(a) for a in plain.decoder.get_layer("logits").get_weights())
    cov = w.T @ w + SIGMA**2 * np.eye(5)
    exact = stats.multivariate_normal(b + w.sum(0), cov).logpdf(POINTS)
    found = log_likelihood(model, POINTS, 5000).estimate.mean
    assert found == pytest.approx(exact.mean(), abs=0.1)
    assert abs(found - closed_form(plain, POINTS).log_p.mean()) > 0.5


def test_every_draw_of_the_terms_is_another():
    """400 draws of variance 1 have a mean of variance 1/400; a term that is a vector is left out."""
    x = np.zeros((200, 5), "float32")
    found = elbo(built(Noisy()), x, num_samples=400)
    assert found.keys() == {"loss", "noise"}
    for estimate in found.values():
        spread = estimate.standard_error * math.sqrt(200)
        assert spread == pytest.approx(1 / 20, rel=0.2)
    parts = elbo(built(Noisy()), x, num_samples=400, batch_size=37)
    assert parts["loss"].mean == pytest.approx(found["loss"].mean, abs=1e-6)


# Codes.


@pytest.mark.parametrize("log_var", [-20.0, -36.0, -200.0, -600.0])
def test_information_is_at_most_log_n_however_narrow_the_posteriors(log_var):
    """Codes apart tell which image it is: log N. Pairs of equal codes tell the pair: log N/2."""
    z_mean = np.random.default_rng(0).normal(size=(60, 3))
    found = latent_statistics(z_mean, np.full_like(z_mean, log_var))
    assert found.mutual_information.mean <= math.log(60)
    assert found.mutual_information.mean == pytest.approx(math.log(60), abs=1e-9)
    pairs = np.repeat(z_mean[:30], 2, axis=0)
    found = latent_statistics(pairs, np.full_like(pairs, log_var))
    assert found.mutual_information.mean == pytest.approx(math.log(30), abs=1e-9)


def test_a_wide_posterior_tells_nothing():
    z_mean = np.random.default_rng(0).normal(size=(60, 3))
    found = latent_statistics(z_mean, np.full_like(z_mean, 100.0))
    assert found.mutual_information.mean == pytest.approx(0, abs=1e-9)


# Everything at once, without a run.


def images(shape=(8, 8, 1), num=30):
    """Labelled images, of which a part is for the test."""
    x, y = blobs(num, shape), np.arange(num) % 3
    return Images("blobs", x, x[:20], y, y[:20])


def found_of(model, data, **kwargs):
    """The metrics by measure, and the report's text."""
    found = evaluation.evaluate(model, data, num_samples=kwargs.pop("num_samples", None), **kwargs)
    texts = {section.title: section.text for section in found.sections}
    return found.metrics, texts, found.sections[-1].figures


def test_an_autoencoder_is_measured_by_what_it_has():
    metrics, texts, figures = found_of(built(Autoencoder(), (8, 8, 1)), images())
    assert metrics.keys() == {"settings", "elbo", "gap", "reconstruction", "neighbours"}
    assert metrics["settings"]["data"] == "blobs, test, 20 images"
    assert "trained steps" not in metrics["settings"]  # it was never compiled
    assert "loss" in metrics["elbo"]
    gap = metrics["gap"]
    assert gap["gap"]["mean"] == pytest.approx(gap["test"]["mean"] - gap["train"]["mean"], rel=1e-6)
    assert "elbo" not in metrics["elbo"]
    assert "no bound" in texts["Loss"]
    assert "Autoencoder has no `log_weights`" in texts["Log-likelihood"]
    assert "Not computed: the model has no `posterior`" in texts["What the code carries"]
    assert figures.keys() == {"reconstruct", "encodings"}
    with pytest.raises(InvalidValueError, match=r"'measures'.*log_weights.*Autoencoder"):
        found_of(built(Autoencoder(), (8, 8, 1)), images(), measures=["likelihood"])


@pytest.mark.parametrize(
    ("model_class", "why"), [(LearnedPrior, "not N"), (Unsaid, "says its prior")]
)
def test_statistics_that_assume_a_standard_prior_are_left_out_under_another(model_class, why):
    data = images()
    data = Images("bits", data.x_train > 100, data.x_test > 100)
    model = built(model_class(2, hidden_units=(8,), seed=0), (8, 8, 1))
    metrics, texts, figures = found_of(model, data, batch_size=7)
    assert why in texts["What the code carries"]
    assert "latent" not in metrics
    unsaid = model_class is Unsaid
    assert ("likelihood" in metrics) == ("generated" in figures) == (not unsaid)


def test_bits_per_dimension_of_bytes():
    """A scale without bound leaves half of each pixel's mass to 0 and half to 255: one bit."""
    model = built(VAE(2, hidden_units=(), likelihood="discretized_logistic", seed=0), (4, 4, 3))
    for weight in (*model.encoder.weights, *model.decoder.weights):
        weight.assign(np.zeros(weight.shape))
    last = model.decoder.weights[-1]
    halves = np.full((4, 4, 3, 2), [0.5, 30.0])
    last.assign(halves.reshape(last.shape))
    x = np.random.default_rng(0).integers(0, 2, (20, 4, 4, 3)).astype("uint8") * 255
    metrics, _, _ = found_of(model, Images("bytes", x, x), num_samples=20)
    assert metrics["likelihood"]["mean"] == pytest.approx(-48 * math.log(2), rel=1e-5)
    assert metrics["likelihood"]["bits_per_dimension"]["mean"] == pytest.approx(1, rel=1e-5)
    assert metrics["elbo"]["bits_per_dimension"]["mean"] == pytest.approx(1, rel=1e-5)
    assert "nll" in metrics["reconstruction"]


def test_bits_per_dimension_of_binary_pixels_and_none_of_a_density():
    """Logits of 0 give each binary pixel one bit; a density's bits would need the width of a value."""
    for likelihood in ("bernoulli", Gaussian(1.0)):
        model = built(VAE(2, hidden_units=(), likelihood=likelihood, seed=0), (4, 4))
        for weight in (*model.encoder.weights, *model.decoder.weights):
            weight.assign(np.zeros(weight.shape))
        x = blobs(20, (4, 4)) > 100
        metrics, texts, _ = found_of(model, Images("bits", x, x), num_samples=20)
        for name in ("elbo", "likelihood"):
            bits = metrics[name].get("bits_per_dimension")
            if likelihood == "bernoulli":
                assert bits["mean"] == pytest.approx(1, rel=1e-5)
            else:
                assert bits is None
        assert ("a density" in texts["Log-likelihood"]) == (likelihood != "bernoulli")


def test_few_effective_draws_are_told_with_the_images_share():
    x = POINTS.astype("float32")
    images = Images("points", x, x)
    found = evaluation.evaluate(
        built(TwoLayers()), images, measures=["likelihood"], num_samples=100
    )
    few = found.metrics["likelihood"]["images_below_10_effective_samples"]
    assert 0 < few < len(x)
    (caveat,) = found.metrics["likelihood"]["caveats"]
    share = f"{100 * few / len(x):.1f} % of the images ({few} of {len(x)})"
    assert caveat.startswith(f"{share} have an effective sample size below 10")


class WrongTerms(VAE):
    """Its terms are 30 nats above what its log-weights say."""

    def terms(self, x, training=False):
        terms = super().terms(x, training=training)
        return terms | {"loss": terms["loss"] + 30.0}


@pytest.mark.parametrize("kind", [VAE, WrongTerms])
def test_terms_and_log_weights_that_disagree_are_told(kind):
    x = blobs(20, (4, 4)) > 100
    model = built(kind(2, hidden_units=(), seed=0), (4, 4))
    metrics, _, _ = found_of(model, Images("bits", x, x), num_samples=50)
    caveats = [c for c in metrics["likelihood"].get("caveats", ()) if "not the ELBO" in c]
    assert len(caveats) == (kind is WrongTerms)


def test_a_conditional_model_is_measured_with_the_labels_of_its_images():
    x = POINTS.astype("float32")
    data = Images("points", x, x, LABELS, LABELS)
    model = linear_vae(True, Shifted)
    metrics, _, figures = found_of(model, data, num_samples=50)
    exact = closed_form(linear_vae(True), POINTS - SHIFTS[LABELS])
    assert metrics["likelihood"]["mean"] == pytest.approx(exact.log_p.mean(), rel=1e-4)
    names = {"settings", "elbo", "gap", "likelihood", "latent", "reconstruction", "neighbours"}
    assert metrics.keys() == names
    assert {"reconstruct", "generated"} < figures.keys()
    with pytest.raises(InvalidValueError, match=r"'data'.*labels.*condition"):
        evaluation.evaluate(model, Images("bare", x, x))


def test_which_measures_there_are_is_read_off_the_table():
    names = [measure.name for measure in evaluation.MEASURES]
    metadata = evaluation.EvaluateConfig.__dataclass_fields__["measures"].metadata
    assert metadata["help"] == f"some of {', '.join(names)}"
    with pytest.raises(InvalidValueError, match=", ".join(names)):
        evaluation.EvaluateConfig("run", measures=("nonsense",))
