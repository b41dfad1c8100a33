"""Networks in shorter floats: what is summed, drawn and reported stays float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs

import vae_tf
from vae_tf import export
from vae_tf.layers import Binarize, PerImage, Sampling, drawing

pytestmark = pytest.mark.xla

X = blobs(60)
BINARY = X > 100


@pytest.fixture(autouse=True)
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def make(**kwargs):
    model = vae_tf.VAE(3, (16,), seed=0, binarize=True, **kwargs)
    # Keras's own Adam does not move bfloat16 weights: 0.999 is 1 there, and so is its power
    model.compile(keras.optimizers.SGD(1e-2))
    return model


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("mixed_float16", marks=pytest.mark.slow),
        pytest.param("bfloat16", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_a_model_is_trained_evaluated_saved_and_exported(policy, tmp_path):
    model = make()
    history = model.fit(X, batch_size=20, epochs=8, verbose=0, validation_data=X).history
    assert model.encoder.get_layer("hidden_0").compute_dtype == policy.removeprefix("mixed_")
    keras.config.set_dtype_policy("float32")
    twin = make()
    losses = twin.fit(X, batch_size=20, epochs=8, verbose=0).history["loss"]
    assert history["loss"][-1] == pytest.approx(losses[-1], abs=(losses[0] - losses[-1]) / 2)
    twin.set_weights([np.float32(weight) for weight in model.get_weights()])
    # bfloat16 has 8 bits, and the networks two layers each
    for ours, theirs in zip(model.evaluate(X, verbose=0), twin.evaluate(X, verbose=0), strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)
    for ours, theirs in (
        (model.predict(X, verbose=0), twin.predict(X, verbose=0)),
        (model.generate(5, seed=1), twin.generate(5, seed=1)),
        (model.encode(X)[0], twin.encode(X)[0]),
        (model.code(X), twin.code(X)),
    ):
        assert ours.dtype == "float32"
        np.testing.assert_allclose(ours, theirs, atol=0.03)
    weights = model.log_weights(BINARY, 7, seed=0)
    assert weights.dtype == "float32"
    np.testing.assert_allclose(weights, twin.log_weights(BINARY, 7, seed=0), rtol=0.03)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.generate(5, seed=1), model.generate(5, seed=1))
    assert loaded.fit(X, verbose=0).history["loss"][0] < history["loss"][-1] + 1
    path = export.export_decoder(model, tmp_path / "exported", with_encoder=True)
    drawn = export.generate_from_saved_model(path, 5, seed=1)
    np.testing.assert_allclose(drawn, model.generate(5, seed=1), atol=0.01)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"], indirect=True)
def test_noise_and_draws_do_not_know_of_the_policy(policy):
    """Bit for bit those of float32; a Bernoulli's share of ones by its standard error."""
    source = {"seed": 3, "numbers": np.arange(500)}
    grey, code = tf.fill((500, 400), 0.5), (tf.zeros((500, 4)), tf.ones((500, 4)))
    with drawing(PerImage(**source)):
        pixels, z = Binarize(seed=1)(grey), Sampling(seed=1)(code)
    keras.config.set_dtype_policy("float32")
    with drawing(PerImage(**source)):
        expected = Binarize(seed=1)(grey), Sampling(seed=1)(code)
    np.testing.assert_array_equal(tf.cast(pixels, "float32"), expected[0])
    np.testing.assert_array_equal(z, expected[1])
    share = float(tf.reduce_mean(tf.cast(pixels, "float32")))
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(500 * 400)
