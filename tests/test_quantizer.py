"""The codebook: nearest codes, the gradient past them, how they follow the vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist

from vae_tf.quantizer import VectorQuantizer, straight_through

RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(size=(6, 5, 4, 3)).astype("float32")


def quantizer(num=7, dim=3, **kwargs):
    layer = VectorQuantizer(num, dim, **kwargs)
    layer.build((None, dim))
    layer.sums.assign(np.random.default_rng(1).normal(size=(num, dim)))
    return layer


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_the_nearest_codes_are_numpys(codebook):
    layer = quantizer(codebook=codebook)
    if codebook == "ema":
        layer.counts.assign(RANDOM.uniform(0.5, 4, 7))
    e = layer.embeddings.numpy()
    expected = cdist(Z.reshape(-1, 3), e).argmin(axis=1).reshape(Z.shape[:-1])
    np.testing.assert_array_equal(layer.codes(Z), expected)
    np.testing.assert_allclose(layer(Z), e[expected], atol=1e-6)
    assert layer.codes(Z).dtype == "int32"


def test_vectors_of_short_floats_are_compared_in_full():
    layer = quantizer(64)
    short = tf.cast(Z, "float16")
    np.testing.assert_array_equal(layer.codes(short), layer.codes(tf.cast(short, "float32")))
    assert layer(short).dtype == "float32"


def test_the_gradient_passes_straight_through():
    z, z_q = tf.constant(Z), tf.Variable(2 * Z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = tf.reduce_sum(straight_through(z, z_q) ** 3)
    of_z, of_z_q = tape.gradient(loss, [z, z_q])
    np.testing.assert_allclose(of_z, 3 * (2 * Z) ** 2, rtol=1e-5)  # at z_q, and not at z
    assert of_z_q is None


def test_the_codebook_follows_as_the_paper_says():
    """N ← γN + (1−γ)n, m ← γm + (1−γ)Σz, e = m/N, over several steps, in NumPy."""
    layer, n, m = quantizer(decay=0.9), np.ones(7), quantizer().sums.numpy().astype("float64")
    for step in range(5):
        z = RANDOM.normal(size=(8, 4, 3)).astype("float32")
        vectors = z.reshape(-1, 3)
        nearest = cdist(vectors, m / n[:, None]).argmin(axis=1)
        codes = layer.codes(z)
        np.testing.assert_array_equal(np.ravel(codes), nearest, err_msg=str(step))
        layer.follow(z, codes, np.zeros(7, "float32"))
        of_codes = nearest == np.arange(7)[:, None]
        n = 0.9 * n + 0.1 * of_codes.sum(axis=1)
        m = 0.9 * m + 0.1 * of_codes @ vectors
        np.testing.assert_allclose(layer.counts, n, rtol=1e-5)
        np.testing.assert_allclose(layer.embeddings, m / n[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_a_code_that_nothing_is_near_takes_the_place_of_a_vector(codebook):
    layer = quantizer(codebook=codebook)
    far = layer.embeddings.numpy()
    far[2] = 100
    layer.sums.assign(far)
    uniform = np.linspace(0, 1, 7).astype("float32")
    for step in range(1000):
        before = layer.embeddings.numpy()[2]
        layer.follow(Z, layer.codes(Z), uniform)
        if np.abs(layer.embeddings.numpy()[2] - before).max() > 1:
            break
        assert layer.counts.numpy()[2] == pytest.approx(0.99 ** (step + 1), rel=1e-3)
    assert 10 < step < 500
    picked = Z.reshape(-1, 3)[int(uniform[2] * 120)]
    np.testing.assert_allclose(layer.embeddings[2], picked, rtol=1e-5)
    assert np.sum(layer.codes(Z) == 2) > 0  # from now on it is used


def test_a_number_of_one_picks_the_last_vector():
    layer = quantizer()
    layer.counts.assign(np.array([1e-6] + [20] * 6))
    layer.follow(Z, layer.codes(Z), np.ones(7, "float32"))
    np.testing.assert_allclose(layer.embeddings[0], Z[-1, -1, -1], rtol=1e-5)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_saved_and_loaded(codebook, tmp_path):
    layer = quantizer(codebook=codebook, decay=0.8)
    layer.follow(Z, layer.codes(Z), np.zeros(7, "float32"))
    inputs = keras.Input((None, 3))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.get_config() == layer.get_config()
    np.testing.assert_array_equal(loaded.embeddings, layer.embeddings)


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"num_embeddings": 1}, "num_embeddings"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"codebook": "mean"}, "codebook"),
        ({"decay": 1.0}, "decay"),
        ({"decay": -0.1}, "decay"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, argument):
    with pytest.raises(ValueError, match=f"'{argument}'"):
        VectorQuantizer(**{"num_embeddings": 4, "embedding_dim": 2, **given})
