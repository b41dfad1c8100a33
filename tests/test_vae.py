"""`VAE`: what it learns, its mathematics, what one looks at, what it refuses."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import blobs, run_python
from training_helpers import small_vae

import vae_tf
from vae_tf import VAE, random
from vae_tf.distributions import Normal
from vae_tf.engine.one_step import EVALUATION_SEED

pytestmark = pytest.mark.xla


class LearnedPrior(VAE):
    """A prior that is not N(0, I)."""

    def prior(self):
        return Normal(tf.ones((1, self.latent_dim)), tf.zeros((1, self.latent_dim)))


def numpy_elbo(model, x, noise):
    """−ELBO and its terms in NumPy float64, from the model's weights: a second derivation."""

    def dense(hidden, layers):
        for layer in layers:
            kernel, bias = (w.numpy().astype("float64") for w in layer.weights)
            hidden = hidden @ kernel + bias
            if "hidden" in layer.name:
                hidden = np.maximum(hidden, 0)
        return hidden

    layers = {layer.name: layer for layer in model.encoder.layers}
    x = x.reshape(len(x), -1) / 255.0
    hidden = dense(x, [v for k, v in layers.items() if k.startswith("hidden")])
    z_mean, z_log_var = np.split(dense(hidden, [layers["z_mean_and_log_var"]]), 2, axis=1)
    z = z_mean + np.exp(0.5 * z_log_var) * noise
    p = 1 / (1 + np.exp(-dense(z, [v for v in model.decoder.layers if v.weights])))
    reconstruction = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1).mean()
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(1).mean()
    return reconstruction + kl, reconstruction, kl


# Training, saving, and what the arguments do.


def test_fit_learns_and_reports_its_terms():
    """What it learns beats the best constant image, whose cross-entropy is known."""
    model, x = small_vae(optimizer=keras.optimizers.Adam(1e-2)), blobs(200)
    history = model.fit(x, epochs=60, validation_data=blobs(50, seed=1), verbose=0).history
    names = ("loss", "reconstruction_loss", "kl_loss")
    monitored = ("beta", "gradient_norm", "active_units", "aggregate_kl")
    assert set(history) == {*names, *monitored, *(f"val_{name}" for name in names)}
    p = np.mean(x / 255, axis=0)
    assert history["loss"][-1] < -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    for prefix in ("", "val_"):
        loss, reconstruction, kl = (np.array(history[prefix + name]) for name in names)
        np.testing.assert_allclose(loss, reconstruction + kl, rtol=1e-6)


def test_the_gradient_reaches_every_weight():
    model = small_vae()
    model.build((None, 8, 8))
    before = [w.numpy() for w in model.trainable_weights]
    model.fit(blobs(), epochs=3, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(weight.numpy(), old), weight.path


def test_every_hyperparameter_moves_the_loss_and_the_same_ones_do_not():
    changes = [
        {}, {"latent_dim": 3}, {"hidden_units": (8,)}, {"hidden_units": ()},
        {"activation": "tanh"}, {"seed": 1}, {"kernel_initializer": "glorot_uniform"},
        {"output_bias": "zeros"},
    ]  # fmt: skip
    losses = [
        small_vae(run_eagerly=True, **change).fit(blobs(), epochs=2, verbose=0).history["loss"]
        for change in [{}, *changes]
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert len({round(loss[-1], 3) for loss in losses[1:]}) == len(changes), losses


def test_batch_size_learning_rate_epochs_and_warm_up_move_the_loss():
    def loss(batch_size=32, rate=1e-3, epochs=4, warmup=0):
        model = small_vae(optimizer=keras.optimizers.Adam(rate), run_eagerly=True)
        hooks = [vae_tf.KLWarmup(warmup)]
        kwargs = {"batch_size": batch_size, "epochs": epochs, "callbacks": hooks}
        return model.fit(blobs(), verbose=0, **kwargs).history["loss"][-1]

    losses = [loss(), loss(batch_size=16), loss(rate=1e-2), loss(epochs=5), loss(warmup=100)]
    assert len({round(value, 3) for value in losses}) == len(losses), losses


@pytest.mark.slow
def test_save_and_reload_in_a_fresh_process(tmp_path):
    model, x = small_vae(jit_compile=False, activation="gelu"), blobs()
    model.fit(x, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x=x)
    run_python(
        "import sys, numpy as np, vae_tf, keras\n"
        "folder = sys.argv[1]\n"
        "model = keras.models.load_model(folder + '/model.keras')\n"
        "x = np.load(folder + '/x.npz')['x']\n"
        "before = model.evaluate(x, verbose=0)\n"
        "np.savez(folder + '/out.npz', predicted=model.predict(x, verbose=0), evaluated=before,\n"
        "         generated=model.generate(5, seed=3), iterations=model.optimizer.iterations)\n"
        "model.fit(x, verbose=0)\n",
        tmp_path,
    )
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(out["predicted"], model.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_allclose(out["evaluated"], model.evaluate(x, verbose=0), rtol=1e-6)
    np.testing.assert_allclose(out["generated"], model.generate(5, seed=3), atol=1e-6)
    assert out["iterations"] == model.optimizer.iterations == 2


def test_a_model_that_was_never_compiled_comes_back_so(tmp_path):
    model = VAE(latent_dim=2, hidden_units=(16,))
    model.build((None, 8, 8))
    model.save(tmp_path / "model.keras")
    assert not keras.models.load_model(tmp_path / "model.keras").compiled


@pytest.mark.parametrize("shape", [(8, 8), (8, 6, 1), (6, 8, 3), (20,)])
def test_any_image_shape(shape):
    x = np.random.default_rng(0).integers(0, 256, (12, *shape)).astype("uint8")
    model = small_vae(jit_compile=False)
    model.fit(x, verbose=0)
    for images in (model.predict(x, verbose=0), model.reconstruct(x), model.generate(12, seed=0)):
        assert images.shape == x.shape
        assert images.min() >= 0
        assert images.max() <= 1
    np.testing.assert_allclose(model.predict(x, verbose=0), model.reconstruct(x), atol=1e-6)


# The mathematics.


def test_loss_against_a_second_derivation():
    """`evaluate` against NumPy in float64, on noise by the numbers of the images."""
    model, x = small_vae(latent_dim=3, hidden_units=(16, 8)), blobs(40)
    model.fit(x, epochs=2, verbose=0)
    key = random.fold(random.key_of(EVALUATION_SEED), 0)  # of the first draw
    noise = random.normal(key, 40, 3).numpy().astype("float64")
    expected = numpy_elbo(model, x, noise)
    for batch_size in (40, 7):
        found = model.evaluate(x, batch_size=batch_size, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("model_class", [VAE, LearnedPrior])
def test_the_kl_enters_through_add_loss(model_class):
    """`model.losses` after a call holds the mean of the term `kl_loss`, as SciPy has it."""
    model, x = small_vae(model_class), blobs(30)
    model.build((None, 8, 8))
    layer = model.encoder.get_layer("z_mean_and_log_var")
    layer.kernel.assign(3 * layer.kernel)  # a KL that is not nearly 0
    logits = model(x)
    assert logits.shape == x.shape
    (loss,) = model.losses
    term = model.terms(model.to_floats(tf.constant(x)))["kl_loss"]
    assert term.shape == (30,)
    assert float(loss) == pytest.approx(float(np.mean(term)), rel=1e-6)
    shift = 0.0 if model_class is VAE else 1.0
    z_mean, z_log_var = (part.astype("float64") for part in model.encode(x))
    means = np.mean([quadrature_kl(*row, shift) for row in zip(z_mean, z_log_var, strict=True)])
    assert float(loss) == pytest.approx(means, rel=1e-5)


def quadrature_kl(z_mean, z_log_var, shift):
    """KL(N(μ, diag σ²) ‖ N(shift, I)) by integration."""
    total = 0.0
    for mean, sd in zip(z_mean, np.exp(0.5 * z_log_var), strict=True):
        z = np.linspace(mean - 12 * sd, mean + 12 * sd, 20001)
        q = scipy.stats.norm(mean, sd)
        total += np.trapezoid(q.pdf(z) * (q.logpdf(z) - scipy.stats.norm(shift, 1).logpdf(z)), z)
    return total


def test_training_and_evaluation_are_on_binary_draws():
    """Each epoch's loss, and `evaluate`'s, by NumPy from the keys of the pixels' and the code's draws."""
    grey = blobs(40, (6, 6))
    model = small_vae(optimizer=keras.optimizers.SGD(0.0), hidden_units=(8,), binarize=True)
    losses = model.fit(grey, epochs=2, batch_size=40, shuffle=False, verbose=0).history["loss"]
    seeds = (model.binarize.seed, model.sampling.seed)
    expected = [
        binary_loss(model, grey, *((np.uint32(seed), np.uint32(step)) for seed in seeds))
        for step in range(2)
    ]
    assert abs(expected[0] - expected[1]) > 1e-3
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    key = random.key_of(EVALUATION_SEED)  # the pixels are drawn first, then the code
    expected = binary_loss(model, grey, random.fold(key, 0), random.fold(key, 1))
    found = model.evaluate(grey, batch_size=17, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def binary_loss(model, grey, pixels, code):
    """−ELBO of draws of the pixels and of the code, by their keys."""
    p = grey / np.float32(255)
    uniform = random.uniform(pixels, len(grey), p[0].size).numpy().reshape(p.shape)
    x = (uniform <= p).astype("float32")
    z_mean, z_log_var = model.encode(x)
    z = z_mean + np.exp(0.5 * z_log_var) * random.normal(code, len(grey), 2)
    logits = np.float64(model.decode(z))
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(1)
    return np.mean((np.logaddexp(0, logits) - x * logits).sum((1, 2)) + kl)


def test_the_original_architecture_by_default():
    model = VAE()
    model.build((None, 28, 28))
    kernels = [w.shape for w in model.trainable_weights if len(w.shape) == 2]
    assert kernels == [
        (784, 512), (512, 384), (384, 256), (256, 20),
        (10, 256), (256, 384), (384, 512), (512, 784),
    ]  # fmt: skip
    activations = {
        layer.activation.__name__ for layer in model.encoder.layers if "hidden" in layer.name
    }
    assert activations == {"relu"}


def test_training_follows_adam_on_the_elbo():
    """Three steps of `fit` against a plain eager loop with the same noise and order."""
    x = blobs(30)
    fitted, looped = small_vae(), small_vae()
    looped.compile(run_eagerly=True, optimizer=keras.optimizers.Adam(1e-3))
    fitted.build((None, 8, 8)), looped.build((None, 8, 8))
    looped.begin(x.astype("float32") / 255)
    fitted.fit(x, batch_size=10, epochs=1, shuffle=False, verbose=0)
    for start in (0, 10, 20):
        noise = looped.sampling((tf.zeros((10, 2)), tf.zeros((10, 2))))
        images = x[start : start + 10].astype("float32") / 255
        with tf.GradientTape() as tape:
            z_mean, z_log_var = looped.encoder(images)
            logits = looped.decoder(z_mean + tf.exp(0.5 * z_log_var) * noise)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
            kl = 0.5 * (tf.exp(z_log_var) + z_mean**2 - 1 - z_log_var)
            loss = (tf.reduce_sum(entropy) + tf.reduce_sum(kl)) / 10
        weights = looped.trainable_weights
        looped.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    for one, other in zip(fitted.trainable_weights, looped.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)  # Adam moves 1e-3 a step


# Looking at what was learned.


def test_evaluate_is_repeatable_and_leaves_training_alone():
    x = blobs()
    plain, watched = small_vae(jit_compile=False), small_vae(jit_compile=False)
    plain.fit(x, epochs=4, verbose=0)
    watched.fit(x, epochs=2, validation_data=x, verbose=0)
    assert watched.evaluate(x, verbose=0) == watched.evaluate(x, verbose=0)
    watched.fit(x, epochs=2, verbose=0)
    for a, b in zip(plain.trainable_weights, watched.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_generate_is_fixed_by_its_seed():
    model = small_vae()
    model.build((None, 8, 8))
    images = model.generate(6, seed=1)
    np.testing.assert_array_equal(images, model.generate(6, seed=1))
    np.testing.assert_allclose(images[:2], model.generate(2, seed=1), atol=1e-6)
    assert not np.allclose(images, model.generate(6, seed=2))
    assert not np.allclose(model.generate(6), model.generate(6))


def test_interpolate_starts_and_ends_at_the_reconstructions():
    model, x = small_vae(), blobs()
    model.fit(x, epochs=2, verbose=0)
    images = model.interpolate(x[0], x[1], num=5)
    assert images.shape == (5, 8, 8)
    np.testing.assert_allclose(images[[0, -1]], model.reconstruct(x[:2]), atol=1e-5)
    z_mean = np.asarray(model.encode(x[:2])[0])
    middle = model.decode_images(z_mean.mean(0, keepdims=True))
    np.testing.assert_allclose(images[2:3], middle, atol=1e-5)


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"latent_dim": 0}, ValueError, "latent_dim.*positive integer.*latent_dim=0"),
        ({"latent_dim": 2.5}, TypeError, "latent_dim"),
        ({"latent_dim": True}, TypeError, "latent_dim"),
        ({"hidden_units": (512, 0)}, ValueError, "hidden_units"),
        ({"hidden_units": "512"}, TypeError, "hidden_units"),
        ({"hidden_units": (5.5,)}, TypeError, "hidden_units"),
        ({"seed": -1}, ValueError, "seed"),
        ({"activation": "relux"}, ValueError, "relux"),
    ],
)
def test_constructor_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        VAE(**arguments)


def test_generate_before_the_first_image_says_what_to_do():
    with pytest.raises(ValueError, match="fit"):
        VAE().generate(3)
