"""The vector quantised autoencoder: its terms, how it trains, what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from scipy import stats
from scipy.spatial.distance import cdist
from training_helpers import flat

from vae_tf import VQVAE, Bernoulli, StepHistory
from vae_tf.engine.monitor import CodeMonitor
from vae_tf.errors import CollapseWarning
from vae_tf.layers import PerImage, drawing

X = (blobs(60) > 100)[..., None]


def small(shape=(8, 8, 1), optimizer=None, compiled=(), **kwargs):
    options = {"num_embeddings": 8, "embedding_dim": 4, "filters": (8,), "seed": 0, **kwargs}
    model = VQVAE(**options)
    model.build((None, *shape))
    model.compile(optimizer or keras.optimizers.Adam(1e-2), **dict(compiled))
    return model


def terms(model, x=X, training=False):
    with drawing(PerImage(0, np.arange(len(x)))):
        return model.terms(tf.constant(x, "float32"), training=training)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_the_terms_by_hand(codebook):
    model = small(codebook=codebook, commitment_cost=0.5)
    found = {name: value.numpy() for name, value in terms(model).items()}
    z, e = model.encoder(np.float32(X)).numpy(), model.quantizer.embeddings.numpy()
    codes = cdist(z.reshape(-1, 4), e).argmin(axis=1).reshape(z.shape[:-1])
    squares = ((z - e[codes]) ** 2).sum((1, 2, 3))
    mean = model.likelihood.mean(model.decode(e[codes])).numpy()
    log_x = stats.bernoulli(np.float64(mean)).logpmf(X).sum((1, 2, 3))
    np.testing.assert_allclose(found["reconstruction_loss"], -log_x, rtol=1e-5)
    np.testing.assert_allclose(found["commitment_loss"], 0.5 * squares, rtol=1e-5)
    rest = 0.0
    if codebook == "loss":
        np.testing.assert_allclose(found["codebook_loss"], squares, rtol=1e-5)
        rest = squares
    np.testing.assert_allclose(found["loss"], -log_x + 0.5 * squares + rest, rtol=1e-5)
    usage = np.array([np.bincount(np.ravel(each), minlength=8) for each in codes]) / 16
    np.testing.assert_allclose(found["code_usage"], usage, rtol=1e-6)
    np.testing.assert_array_equal(model.codes(X), codes)
    np.testing.assert_allclose(model.encode(X), e[codes], rtol=1e-6)


def test_the_gradients_by_hand():
    """Of codebook="loss": 2 Σ (e_k − z) to the codes; to z 2β(z − e), and the decoder's as it comes."""
    model = small(codebook="loss", commitment_cost=0.5)
    z, e = model.encoder(np.float32(X)).numpy(), model.quantizer.embeddings.numpy()
    codes = model.codes(X)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(terms(model)["loss"])
    *of_encoder, of_codes = tape.gradient(
        loss, [*model.encoder.trainable_weights, model.quantizer.sums.value]
    )
    expected = [2 * (e[k] - z[codes == k]).sum(axis=0) for k in range(8)]
    np.testing.assert_allclose(tf.convert_to_tensor(of_codes), expected, rtol=1e-4, atol=1e-4)

    z_q = tf.constant(e[codes])
    with tf.GradientTape() as tape:
        tape.watch(z_q)
        image = -tf.reduce_sum(
            model.likelihood.log_prob(model.decode(z_q), tf.constant(X, "float32"))
        )
    upstream = tape.gradient(image, z_q) + 2 * 0.5 * (z - e[codes])
    with tf.GradientTape() as tape:
        out = model.encoder(tf.constant(X, "float32"))
    by_hand = tape.gradient(out, model.encoder.trainable_weights, upstream)
    np.testing.assert_allclose(flat(of_encoder), flat(by_hand), rtol=1e-3, atol=1e-3)


def test_evaluation_leaves_the_codebook_alone():
    model = small()
    before = model.quantizer.sums.numpy()
    model.evaluate(X, verbose=0)
    np.testing.assert_array_equal(model.quantizer.sums, before)
    terms(model, training=True)
    assert (model.quantizer.sums.numpy() != before).any()


# How many codes are used.


def test_the_perplexity_is_that_of_the_epochs_mean_usage():
    """Of the last epoch's, in steps that change nothing: of uneven batches, by images."""
    model, monitor, record = (
        small(optimizer=keras.optimizers.SGD(0.0)),
        CodeMonitor(),
        StepHistory(),
    )
    model.quantizer.decay = 1.0
    hooks = [monitor, record]
    options = {"batch_size": 25, "epochs": 2, "validation_data": X, "verbose": 0}
    history = model.fit(X, callbacks=hooks, **options).history
    shares = np.bincount(np.ravel(model.codes(X)), minlength=8) / model.codes(X).size
    expected = np.exp(stats.entropy(shares))
    assert 1.5 < expected < 8
    np.testing.assert_allclose(history["perplexity"], expected, rtol=1e-5)
    column = record.columns()["perplexity"]
    np.testing.assert_allclose(column[~np.isnan(column)], expected, rtol=1e-5)


def test_every_fit_has_the_perplexity_and_other_models_have_none():
    history = small().fit(X, batch_size=20, verbose=0).history
    assert 1 <= history["perplexity"][0] <= 8
    assert "active_units" not in history


def test_few_codes_are_told_once():
    model = small(num_embeddings=64, optimizer=keras.optimizers.SGD(0.0))
    model.quantizer.sums.assign(np.concatenate([np.zeros((1, 4)), np.full((63, 4), 99.0)]))
    model.quantizer.decay = 1.0
    with pytest.warns(
        CollapseWarning, match=r"Few of the 64 codes are used: their perplexity is 1\.0\."
    ) as found:
        model.fit(X, batch_size=20, epochs=4, verbose=0, callbacks=[CodeMonitor(patience=5)])
    assert len(found) == 1
    assert "--num-embeddings" in str(found[0].message)


# Where it can be trained.


def test_eager_steps_are_those_of_the_loop():
    found = []
    for compiled in ({"run_eagerly": True}, {}):
        model = small(optimizer=keras.optimizers.SGD(1e-3), compiled=compiled)
        history = model.fit(X, batch_size=20, epochs=2, verbose=0).history
        found.append((history["loss"], flat(model.get_weights())))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_short_floats_keep_a_full_codebook(dtype):
    model = small(dtype=dtype)
    history = model.fit(X, batch_size=20, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 1
    assert model.quantizer.embeddings.dtype == "float32"
    assert model.reconstruct(X).dtype == "float32"
    assert model.encode(X).dtype == "float32"


def test_colour_images_from_a_data_set():
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 12, 3)).astype("uint8")
    batches = tf.data.Dataset.from_tensor_slices(x).batch(10)
    model = VQVAE(8, 4, filters=(8,), likelihood="gaussian", seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(batches, epochs=6, verbose=0, validation_data=batches).history
    assert history["val_loss"][-1] < history["val_loss"][0] - 1
    assert model.codes(x).shape == (30, 4, 6)
    assert model.reconstruct(x).shape == x.shape


def test_float16_images_are_as_good_as_any():
    model = small()
    x = X.astype("float16")
    model.fit(x, batch_size=20, verbose=0)
    np.testing.assert_array_equal(model.codes(x), model.codes(X))


# What it refuses.


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((20, 64), "uint8"),
            r"'image_shape': .*code is a map.*\(64,\).*a VAE takes vectors",
        ),
        (np.zeros((20, 9, 9), "uint8"), "'image_shape': .* 2 divides.*nearest 8x8 or 10x10"),
    ],
)
def test_images_that_no_map_can_be_made_of_are_refused(x, message):
    model = VQVAE(8, 4, filters=(8,))
    model.compile()
    with pytest.raises(ValueError, match=message):
        model.fit(x, verbose=0)


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"num_embeddings": 1}, "num_embeddings"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"commitment_cost": -1.0}, "commitment_cost"),
        ({"codebook": "sum"}, "codebook"),
        ({"filters": ()}, "filters"),
        ({"residual_blocks": -1}, "residual_blocks"),
        ({"likelihood": Bernoulli(), "output_bias": "none"}, "output_bias"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, argument):
    with pytest.raises(ValueError, match=f"'{argument}'"):
        VQVAE(**given)
