"""The network over the code map: what each output depends on, and what is drawn from it."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs

from vae_tf import VQVAE, CodePrior, autoregressive
from vae_tf.autoregressive import MaskedConv2D, code_prior_network

X = (blobs(60) > 100)[..., None]


def with_random_weights(network, scale=1.0):
    """A network whose logits are spread, as those of a trained one are; they begin at 0."""
    random = np.random.default_rng(0)
    for weight in network.weights:
        fan = max(1, np.prod(weight.shape[:-1]))
        weight.assign(random.normal(0, scale / np.sqrt(fan), weight.shape))
    return network


def log_prior(network, codes):
    log_p = tf.nn.log_softmax(network(codes)).numpy()
    return np.take_along_axis(log_p, codes[..., None], axis=-1)[..., 0].sum((1, 2))


# What an output depends on.


@pytest.mark.parametrize(
    ("shape", "num_layers"), [((7, 7), 6), ((3, 5), 4), ((5, 2), 4), ((1, 4), 3)]
)
def test_an_output_depends_on_every_earlier_place_and_on_no_other(shape, num_layers):
    """Each place's code is changed in turn: those that follow change, all of them; no other."""
    num = 5
    network = with_random_weights(code_prior_network(shape, num, 8, num_layers), 2.0)
    size = np.prod(shape)
    base = np.random.default_rng(1).integers(0, num, size)
    changed = np.tile(base, (size, num - 1, 1))
    for place in range(size):
        changed[place, :, place] = [code for code in range(num) if code != base[place]]
    out = network(changed.reshape(-1, *shape)).numpy().reshape(size, num - 1, size, num)
    before = network(base.reshape(1, *shape)).numpy().reshape(size, num)
    moved = np.abs(out - before).max(axis=(1, 3))
    later = np.arange(size) > np.arange(size)[:, None]
    assert np.all(moved[~later] == 0)
    assert np.all(moved[later] > 0)


def test_masks_of_five_by_five():
    def seen(see, size):
        layer = MaskedConv2D(1, size, see=see, kernel_initializer="ones")
        image = tf.Variable(tf.ones((1, 5, 5, 1)))
        with tf.GradientTape() as tape:
            middle = layer(image)[0, 2, 2, 0]
        return tape.gradient(middle, image).numpy()[0, :, :, 0].astype(int).tolist()

    assert seen("above", 5) == [[1] * 5] * 2 + [[0] * 5] * 3
    assert seen("to_row", 5) == [[1] * 5] * 3 + [[0] * 5] * 2
    row = [[0] * 5] * 2
    assert seen("left", (1, 5)) == [*row, [1, 1, 0, 0, 0], *row]
    assert seen("to_left", (1, 5)) == [*row, [1, 1, 1, 0, 0], *row]


@pytest.mark.parametrize(
    "given", [{"kernel_size": 2}, {"kernel_size": (3, 4)}, {"kernel_size": 3, "strides": 2}]
)
def test_kernels_without_a_middle_are_refused(given):
    with pytest.raises(ValueError, match=r"'kernel_size': expected odd sizes"):
        MaskedConv2D(4, see="above", **given)
    with pytest.raises(ValueError, match="'see'"):
        MaskedConv2D(4, 3, see="below")


# What it says, and what is drawn.


def test_the_probabilities_of_all_maps_sum_to_one_and_are_those_of_the_draws():
    """2×3 maps of 3 codes are 729; 20,000 draws come as often as the network says, by χ²."""
    shape, num, count = (2, 3), 3, 20_000
    network = with_random_weights(code_prior_network(shape, num, 8, 3))
    maps = np.array(list(itertools.product(range(num), repeat=6))).reshape(-1, *shape)
    p = np.exp(np.float64(log_prior(network, maps)))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert 10 < 1 / (p**2).sum() < 400  # some maps are likelier than others
    uniform = np.random.default_rng(3).uniform(size=(count, *shape)).astype("float32")
    drawn = np.asarray(autoregressive.draw_codes(network, tf.constant(uniform)))
    found = np.bincount(drawn.reshape(count, -1) @ num ** np.arange(6)[::-1], minlength=len(p))
    likely = count * p > 5
    groups = [*found[likely], found[~likely].sum()], [*count * p[likely], count * p[~likely].sum()]
    chi2 = sum((a - b) ** 2 / b for a, b in zip(*groups, strict=True))
    degrees = likely.sum()
    assert abs(chi2 - degrees) < 5 * np.sqrt(2 * degrees)


def test_codes_without_probability_are_not_drawn():
    network = code_prior_network((2, 2), 4, 4, 2)
    network.get_layer("left").get_layer("logits").bias.assign([-np.inf, 0, -np.inf, 0])
    uniform = np.array([[[1e-9, 1.0], [0.49, 0.51]]], "float32")
    np.testing.assert_array_equal(autoregressive.draw_codes(network, uniform), [[[1, 3], [1, 3]]])


def test_it_begins_with_all_codes_alike():
    network = code_prior_network((4, 4), 16, 8, 2, seed=0)
    codes = np.random.default_rng(0).integers(0, 16, (3, 4, 4))
    np.testing.assert_allclose(log_prior(network, codes), -16 * np.log(16), rtol=1e-5)


# Trained.


def vqvae(**kwargs):
    model = VQVAE(8, 4, filters=(8,), seed=0, **kwargs)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(X, batch_size=20, epochs=5, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_bits_per_code(dtype):
    """−log₂ p of a map, divided by its places; below what the codes' own frequencies take."""
    model = vqvae(dtype=dtype)
    prior = CodePrior(model, filters=16, num_layers=3, seed=0, dtype=dtype)
    prior.compile(keras.optimizers.Adam(1e-2))
    prior.fit(X, batch_size=20, epochs=10, verbose=0)
    loss, bits = prior.evaluate(X, verbose=0)
    codes = model.codes(X)
    by_hand = -log_prior(prior.network, codes).mean() / 16 / np.log(2)
    assert bits == pytest.approx(by_hand, rel=1e-4 if dtype == "float32" else 1e-2)
    assert loss == pytest.approx(16 * bits * np.log(2), rel=1e-4)
    share = np.bincount(codes.ravel(), minlength=8) / codes.size
    assert 0 < bits < -(share[share > 0] * np.log2(share[share > 0])).sum()
    images = model.generate(7, seed=3)
    assert images.shape == (7, 8, 8, 1)
    np.testing.assert_array_equal(images[:1], model.generate(1, seed=3))


@pytest.mark.slow
def test_eager_training_is_that_of_the_loop():
    losses = []
    model = vqvae()
    for run_eagerly in (True, False):
        model.adopt(None)
        prior = CodePrior(model, filters=8, num_layers=2, seed=0)
        prior.compile(keras.optimizers.SGD(1e-2), run_eagerly=run_eagerly)
        losses.append(prior.fit(X, batch_size=20, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
