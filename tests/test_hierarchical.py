"""Several stochastic layers: the bound, the ladder's merging, and linear layers whose likelihood is exact."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from scipy import special, stats
from training_helpers import small_vae

from vae_tf import VAE, Gaussian, HierarchicalVAE, KLWarmup, StepHistory
from vae_tf.distributions import Normal
from vae_tf.layers import PerImage, drawing
from vae_tf.models.hierarchical import merged

SIGMA, PIXELS = 0.8, 5
POINTS = np.random.default_rng(3).normal(0.5, 1.0, (8, PIXELS)).astype("float32")
BOTH = pytest.mark.parametrize("inference", ["ladder", "plain"])


def linear(inference, dims):
    """Weights by hand, so that all is jointly normal; q is wider than the posterior, and near to it."""
    random = np.random.default_rng(0)
    options = {"hidden_units": (), "likelihood": Gaussian(SIGMA), "seed": 0}
    model = HierarchicalVAE(dims, inference=inference, **options)
    model.build((None, PIXELS))
    for number, encoder in enumerate(model.encoders, start=1):
        head, top = encoder.get_layer(f"encoder_{number}_z_mean_and_log_var"), number == len(dims)
        wide = 1.0 if inference == "ladder" and not top else 0.3  # log σ²
        set_head(head, random, 0.1, wide, 0.03)
    for number, down in enumerate(model.downs, start=1):
        set_head(down.get_layer(f"down_{number}_z_mean_and_log_var"), random, 0.5, np.log(0.5), 0)
    w, b = random.normal(0, 0.25, (dims[0], PIXELS)), random.normal(0.5, 0.5, PIXELS)
    model.decoder.get_layer("logits").set_weights([w, b])
    return model


def set_head(head, random, of_mean, log_var, of_log_var):
    width, dim = head.kernel.shape[0], head.kernel.shape[1] // 2
    scales = np.repeat([of_mean, of_log_var], dim)
    head.kernel.assign(scales * random.normal(size=(width, 2 * dim)))
    head.bias.assign(np.append(random.normal(0, of_mean / 2, dim), np.full(dim, log_var)))


def moments(model):
    """Mean and covariance of z₁ and of x, from the weights, from the top down."""
    mean, cov = np.zeros(model.latent_dims[-1]), np.eye(model.latent_dims[-1])
    for number in range(len(model.downs), 0, -1):
        head = model.downs[number - 1].get_layer(f"down_{number}_z_mean_and_log_var")
        kernel, bias = (np.float64(value) for value in head.get_weights())
        dim = kernel.shape[1] // 2
        a = kernel[:, :dim]
        mean, cov = mean @ a + bias[:dim], a.T @ cov @ a + np.diag(np.exp(bias[dim:]))
    w, b = (np.float64(value) for value in model.decoder.get_layer("logits").get_weights())
    return (mean, cov), (mean @ w + b, w.T @ cov @ w + SIGMA**2 * np.eye(PIXELS))


def terms(model, x, seed=0):
    with drawing(PerImage(seed, np.arange(len(x)))):
        found = model.terms(tf.constant(x, "float32"))
    return {name: value.numpy() for name, value in found.items()}


# The linear-Gaussian case.


@BOTH
@pytest.mark.parametrize("dims", [(3, 2), (4, 3, 2)])
def test_the_likelihood_of_linear_layers_is_the_exact_one(inference, dims):
    model = linear(inference, dims)
    log_w = np.float64(model.log_weights(POINTS, 40_000, seed=1))
    found = special.logsumexp(log_w, axis=0) - np.log(len(log_w))
    weights = np.exp(log_w - log_w.max(axis=0))
    errors = weights.std(axis=0) / weights.mean(axis=0) / np.sqrt(len(log_w))
    assert np.median(errors) < 0.05
    assert errors.max() < 0.2
    mean, cov = moments(model)[1]
    exact = stats.multivariate_normal(mean, cov).logpdf(POINTS)
    np.testing.assert_array_less(np.abs(found - exact), 4.5 * errors)


@BOTH
def test_the_bound_is_the_mean_of_the_log_weights(inference):
    """The KLs are exact where p is known before z is drawn: the same mean, and other draws."""
    model, x = linear(inference, (3, 2)), np.repeat(POINTS[:1], 8000, axis=0)
    elbo, log_w = -terms(model, x)["loss"], model.log_weights(POINTS[:1], 8000, seed=2)[:, 0]
    error = np.hypot(elbo.std(), log_w.std()) / np.sqrt(8000)
    assert elbo.mean() == pytest.approx(log_w.mean(), abs=4 * error)
    mean, cov = moments(model)[1]
    assert elbo.mean() < stats.multivariate_normal(mean, cov).logpdf(POINTS[0]) - 10 * error


@BOTH
def test_a_layer_that_only_hands_on_leaves_the_log_weights_right(inference):
    """Training makes σ of such a layer as small as it can: z must not be rounded by more."""
    model = HierarchicalVAE((6, 3), (8,), inference=inference, seed=0)
    model.build((None, 4, 4))
    model.downs[0].get_layer("down_1_z_mean_and_log_var").bias.assign([3.0] * 6 + [-60.0] * 6)
    x, draws = np.tile(blobs(2, (4, 4)) / np.float32(255), (1000, 1, 1)), 20
    if inference == "plain":  # q(z₁|x) would not be near to this p(z₁|z₂)
        head = model.encoders[0].get_layer("encoder_1_z_mean_and_log_var")
        head.kernel.assign(0 * head.kernel)
        head.bias.assign([3.0] * 6 + [-60.0] * 6)
    loss = terms(model, x)["loss"]
    log_w = model.log_weights(x, draws, seed=1).mean(axis=0)
    error = np.hypot(loss.std(), log_w.std()) / np.sqrt(len(x))
    assert abs(loss.mean() + log_w.mean()) < 5 * error + 0.01


@BOTH
def test_generation_begins_at_the_top(inference):
    """z₁ has the moments that the layers above give it; another top gives other images."""
    model = linear(inference, (3, 2))
    with drawing(PerImage(5, np.arange(20_000))):
        z = model.sample_prior(20_000).numpy()
    mean, cov = moments(model)[0]
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=4 * np.sqrt(cov.max() / 20_000))
    np.testing.assert_allclose(np.cov(z.T), cov, atol=6 * cov.max() / np.sqrt(20_000))
    head = model.downs[0].get_layer("down_1_z_mean_and_log_var")
    before = model.generate(3, seed=0)
    head.kernel.assign(np.zeros(head.kernel.shape))  # z₁ does not hear of the top
    assert np.abs(model.generate(3, seed=0) - before).min() > 1e-4


def test_what_the_ladder_merges_is_the_product_of_the_densities():
    random = np.random.default_rng(0)
    one, other = ((random.normal(size=(4, 3)), random.normal(0, 2, (4, 3))) for _ in range(2))
    found = merged(Normal(*map(np.float32, one)), Normal(*map(np.float32, other)))
    grid = np.linspace(-40, 40, 200_001)[:, None, None]
    product = stats.norm(one[0], np.exp(one[1] / 2)).pdf(grid)
    product *= stats.norm(other[0], np.exp(other[1] / 2)).pdf(grid)
    product /= product.sum(axis=0)
    mean = (grid * product).sum(axis=0)
    np.testing.assert_allclose(found.mean(), mean, atol=1e-4)
    variance = (grid**2 * product).sum(axis=0) - mean**2
    np.testing.assert_allclose(np.exp(found.log_var), variance, rtol=1e-3)
    far = merged(Normal([1.0], [-180.0]), Normal([5.0], [180.0]))
    np.testing.assert_allclose([far.mean()[0], far.log_var[0]], [1.0, -180.0], rtol=1e-6)


@BOTH
def test_the_kls_of_the_layers_are_those_of_scipys_densities(inference):
    model = linear(inference, (3, 2))
    kls = []
    with drawing(PerImage(0, np.arange(len(POINTS)))):
        layers = model.layers_of(tf.constant(POINTS)[None], model._draws(1))
    for q, p, z, log_q in layers:
        mean, sd = q.mean()[0].numpy(), np.exp(q.log_var[0].numpy() / 2)
        density = stats.norm(mean, sd).logpdf(z[0]).sum(-1)
        np.testing.assert_allclose(log_q[0], density, rtol=1e-4, atol=1e-4)
        shape = z[0].shape
        p_mean, p_var = (np.broadcast_to(v.numpy(), (1, *shape))[0] for v in (p.mean(), p.log_var))
        p_sd = np.exp(p_var / 2)
        if inference == "plain" and len(kls) == 0:
            kls.append(density - stats.norm(p_mean, p_sd).logpdf(z[0]).sum(-1))
        else:
            of_each = np.log(p_sd / sd) + (sd**2 + (mean - p_mean) ** 2) / (2 * p_sd**2) - 0.5
            kls.append(of_each.sum(-1))
    found = terms(model, POINTS)
    for number, kl in enumerate(kls, start=1):
        np.testing.assert_allclose(found[f"kl_layer_{number}"], kl, rtol=1e-3, atol=1e-4)
    total = sum(found[f"kl_layer_{number}"] for number in (1, 2))
    np.testing.assert_allclose(found["kl_loss"], total, rtol=1e-6)
    np.testing.assert_allclose(found["loss"], found["reconstruction_loss"] + total, rtol=1e-6)


# As it comes.


@BOTH
def test_its_first_loss_is_of_the_order_of_the_vaes(inference):
    x = (np.random.default_rng(0).random((100, 28, 28)) < 0.2).astype("float32")
    options = {"hidden_units": (200, 200), "seed": 0}
    vae = VAE(50, **options)
    model = HierarchicalVAE((100, 50), inference=inference, **options)
    losses = []
    for each in (vae, model):
        each.build((None, 28, 28))
        each.begin(x)
        losses.append(terms(each, x)["loss"].mean())
    assert 0.9 * losses[0] < losses[1] < 1.3 * losses[0]


@BOTH
@pytest.mark.parametrize(
    ("dims", "widths"),
    [((4, 2), (16,)), pytest.param((6, 4, 2), ((16,), (8, 8), ()), marks=pytest.mark.slow)],
)
def test_it_learns_and_its_warm_up_is_on(inference, dims, widths):
    x, record = blobs(200) > 100, StepHistory()
    model = HierarchicalVAE(dims, widths, inference, kl_warmup_steps=50, seed=0)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(x, batch_size=20, epochs=15, verbose=0, callbacks=[record])
    columns = record.columns()
    np.testing.assert_allclose(
        columns["beta"][:60], np.minimum(1, np.arange(1, 61) / 50), rtol=1e-5
    )
    assert columns["loss"][-5:].mean() < columns["loss"][:5].mean() - 5
    assert {f"kl_layer_{number + 1}" for number in range(len(dims))} <= columns.keys()


def test_the_warm_up_is_the_constructors_until_a_callback_sets_another(tmp_path):
    assert float(HierarchicalVAE().kl_warmup_steps) == 2000
    model = HierarchicalVAE((4, 2), (8,), kl_warmup_steps=7, seed=0)
    model.build((None, 8, 8))
    model.compile()
    assert float(model.beta) == pytest.approx(1 / 7)
    hook = KLWarmup(3)
    hook.set_model(model)
    hook.on_train_begin()
    assert float(model.beta) == pytest.approx(1 / 3)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["kl_warmup_steps"] == 7
    assert float(loaded.kl_warmup_steps) == 3
    hook = KLWarmup(0)
    hook.set_model(model)
    hook.on_train_begin()
    assert float(model.beta) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(dtype):
    x = blobs(60) > 100
    losses = []
    for each in (dtype, "float32"):
        model = HierarchicalVAE((4, 2), (16,), seed=0, dtype=each)
        model.compile(keras.optimizers.SGD(1e-2), jit_compile=False)
        losses.append(model.fit(x, batch_size=20, epochs=2, verbose=0).history["loss"])
        assert model.log_weights(x, 3, seed=0).dtype == "float32"
        assert model.generate(2, seed=0).dtype == "float32"
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)


def test_without_the_upper_layer_it_is_the_vae():
    """With p(z₁|z₂) = N(0, I) and the top's q = p, the terms are those of a VAE of z₁."""
    model = HierarchicalVAE((2, 2), (16,), "plain", seed=0)
    vae = small_vae(VAE)
    for each in (model, vae):
        each.build((None, 8, 8))
    vae.encoder.set_weights(model.encoders[0].get_weights())
    vae.decoder.set_weights(model.decoder.get_weights())
    top = model.encoders[1].get_layer("encoder_2_z_mean_and_log_var")
    top.kernel.assign(np.zeros(top.kernel.shape))
    x = np.repeat((blobs(1) > 100).astype("float32"), 8000, axis=0)
    (ours, theirs) = (terms(each, x)["loss"] for each in (model, vae))
    error = np.hypot(ours.std(), theirs.std()) / np.sqrt(8000)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * error)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent_dims": (5,)}, "'latent_dims': expected two sizes or more.*One layer is a VAE"),
        ({"latent_dims": 5}, "'latent_dims': expected two sizes or more"),
        ({"latent_dims": (5, 0)}, "'latent_dims': expected a positive integer"),
        ({"hidden_units": ((8,), (8,), (8,))}, "'hidden_units': expected widths for each of 2"),
        ({"hidden_units": (8, -1)}, "'hidden_units': expected a positive integer"),
        ({"inference": "top-down"}, "'inference'"),
        ({"kl_warmup_steps": -1}, "'kl_warmup_steps'"),
        ({"output_bias": "none"}, "'output_bias'"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalVAE(**given)
