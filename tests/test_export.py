"""The SavedModel in fresh processes with plain TensorFlow, against the Keras decoder."""

import io
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import REPOSITORY, blobs, run_python
from keras import ops
from PIL import Image
from small_models import Autoencoder, Labelled, Turned, TwoLayers
from tensorflow_serving.apis import prediction_log_pb2

from vae_tf import VAE, Bernoulli, Model, export_decoder, generate_from_saved_model
from vae_tf.distributions import Normal
from vae_tf.export import export_saved_model
from vae_tf.export.signatures import BY_NAME, DTYPES
from vae_tf.export.versions import find_saved_model, next_version, versions
from vae_tf.random import row_seeds, seeded_normal

PLAIN_TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
folder, saved = sys.argv[1:]
signatures = tf.saved_model.load(saved).signatures
given = np.load(folder + "/given.npz")
decoded = signatures["serving_default"](z=tf.constant(given["z"]))
out = signatures["generate"](seed=tf.constant(given["seeds"]))
alone = [signatures["generate"](seed=tf.constant(given["seeds"][i:i+1])) for i in range(3)]
others = signatures["generate"](seed=tf.constant(np.r_[99, given["seeds"][::-1]]))
np.savez(folder + "/out.npz", names=sorted(signatures), probabilities=decoded["probabilities"],
         images=out["images"], z=out["z"], keys=sorted(out),
         alone=np.concatenate([a["images"] for a in alone]), others=others["images"][:0:-1])
assert "vae_tf" not in sys.modules
"""


@pytest.fixture(scope="module")
def model():
    model = VAE(latent_dim=3, hidden_units=(32, 16), seed=0)
    model.compile()
    model.fit(blobs(), epochs=5, verbose=0)
    return model


def test_in_a_fresh_process_with_plain_tensorflow(model, tmp_path):
    saved = export_decoder(model, tmp_path / "digits")
    assert saved == tmp_path / "digits" / "1"
    z = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    seeds = np.array([0, 1, -5, 2**40, 1], np.int64)
    np.savez(tmp_path / "given.npz", z=z, seeds=seeds)
    run_python(PLAIN_TENSORFLOW, tmp_path, saved, cwd=tmp_path)
    out = np.load(tmp_path / "out.npz")
    assert list(out["names"]) == ["decode", "generate", "generate_png", "serving_default"]
    assert list(out["keys"]) == ["images", "z"]
    np.testing.assert_allclose(out["probabilities"], model.decode_images(z), atol=1e-6)
    np.testing.assert_allclose(out["images"], model.decode_images(out["z"]), atol=1e-6)
    np.testing.assert_array_equal(out["z"][1], out["z"][4])
    assert len(np.unique(out["z"], axis=0)) == 4
    np.testing.assert_allclose(out["alone"], out["images"][:3], atol=1e-6)
    np.testing.assert_allclose(out["others"], out["images"], atol=1e-6)


def test_generate_draws_what_the_model_draws(model, tmp_path):
    export_decoder(model, tmp_path / "m")
    images = generate_from_saved_model(tmp_path / "m", 9, seed=4)
    np.testing.assert_allclose(images, model.generate(9, seed=4), atol=1e-6)
    np.testing.assert_array_equal(
        images, generate_from_saved_model(tmp_path / "m" / "1", 9, seed=4)
    )
    assert not np.allclose(images, generate_from_saved_model(tmp_path / "m", 9, seed=5))


def load(path):
    return tf.saved_model.load(str(path)).signatures


def test_the_signatures_of_the_encoder_give_what_the_model_gives(model, tmp_path):
    signatures = load(export_decoder(model, tmp_path / "m", with_encoder=True))
    images, seeds = blobs()[:6].astype("float32") / 255, np.arange(6)
    encoded = signatures["encode"](images=tf.constant(images))
    z_mean, z_log_var = (np.asarray(part) for part in model.encode(images))
    np.testing.assert_allclose(encoded["z_mean"], z_mean, atol=1e-6)
    np.testing.assert_allclose(encoded["z_log_var"], z_log_var, atol=1e-6)
    reconstructed = signatures["reconstruct"](images=tf.constant(images))["images"]
    np.testing.assert_allclose(reconstructed, model.reconstruct(images), atol=1e-6)
    score = signatures["score"](images=tf.constant(images), seed=tf.constant(seeds))["elbo"]
    epsilon = signatures["generate"](seed=tf.constant(seeds))["z"].numpy()
    p = model.decode_images(z_mean + np.exp(z_log_var / 2) * epsilon).astype("float64")
    log_prob = (images * np.log(p) + (1 - images) * np.log1p(-p)).sum(axis=(1, 2))
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(axis=1)
    np.testing.assert_allclose(score, log_prob - kl, rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (6, 5, 1), (6, 5, 3)])
def test_png_files_are_the_images(shape, tmp_path):
    model = VAE(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, *shape))
    signatures = load(export_decoder(model, tmp_path / "m"))
    files = signatures["generate_png"](seed=tf.range(3, dtype="int64"))["png_bytes"].numpy()
    images = signatures["generate"](seed=tf.range(3, dtype="int64"))["images"].numpy()
    for file, image in zip(files, images, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(file)))
        np.testing.assert_array_equal(pixels, np.round(255 * image.squeeze()).astype("uint8"))


def test_vectors_have_no_png(tmp_path):
    model = VAE(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, 12))
    assert sorted(load(export_decoder(model, tmp_path / "m"))) == [
        "decode",
        "generate",
        "serving_default",
    ]


def built(model, shape=(6, 5, 1)):
    keras.utils.set_random_seed(0)  # not every layer of these models is given a seed
    model.build((None, *shape))
    return model


@pytest.fixture(scope="module")
def labelled():
    return built(Labelled(latent_dim=2, hidden_units=(8,), seed=0))


def test_every_signature_of_a_conditional_model_takes_the_condition(labelled, tmp_path):
    path = export_decoder(labelled, tmp_path / "m", with_encoder=True)
    signatures = load(path)
    assert sorted(signatures) == sorted(BY_NAME)
    for name, signature in signatures.items():
        label = signature.structured_input_signature[1].get("label")
        assert label is not None, name
        assert (label.shape.as_list(), label.dtype) == ([None], tf.int64)
    assert all("label" in log.predict_log.request.inputs for log in warmup(path))


def test_a_conditional_model_is_exported_with_its_condition(labelled, tmp_path):
    signatures = load(export_decoder(labelled, tmp_path / "m", with_encoder=True))
    z, labels = np.random.default_rng(0).normal(size=(4, 2)).astype("float32"), [0, 3, 1, 3]
    table = labelled.shift.weights[0].numpy()
    logits = labelled.decoder(z + 9 * table[labels])
    decoded = signatures["decode"](z=tf.constant(z), label=tf.constant(labels, tf.int64))
    np.testing.assert_allclose(decoded["probabilities"], tf.sigmoid(logits), atol=1e-6)
    images = np.random.default_rng(1).random((4, 6, 5, 1), "float32")
    given = {"images": tf.constant(images), "label": tf.constant(labels, tf.int64)}
    expected = labelled.encoder(images)[0] - 9 * table[labels]
    np.testing.assert_allclose(signatures["encode"](**given)["z_mean"], expected, atol=1e-5)


def test_conditions_go_from_a_saved_model_to_its_images(labelled, tmp_path):
    export_decoder(labelled, tmp_path / "m")
    for label in (3, [0, 1, 2, 3]):
        images = generate_from_saved_model(tmp_path / "m", 4, seed=5, label=label)
        expected = labelled.generate(4, seed=5, condition=label)
        np.testing.assert_allclose(images, expected, atol=1e-6)
    one, other = (generate_from_saved_model(tmp_path / "m", 1, 5, label=label) for label in (0, 1))
    assert not np.allclose(one, other, atol=1e-2)
    for given in ({}, {"class": 1}, {"label": [1, 2]}, {"label": 1, "more": 1}):
        with pytest.raises(ValueError, match=r"'(condition|label)'"):
            generate_from_saved_model(tmp_path / "m", 4, seed=5, **given)
    with pytest.raises(TypeError, match="'label'"):
        generate_from_saved_model(tmp_path / "m", 4, seed=5, label=0.5)


def test_a_condition_of_any_name_shape_and_type(tmp_path):
    model = built(Turned(latent_dim=2, hidden_units=(8,), seed=0))
    signatures = load(export_decoder(model, tmp_path / "m"))
    angles = signatures["generate"].structured_input_signature[1]["angles"]
    assert (angles.shape.as_list(), angles.dtype) == ([None, 2], tf.float32)
    for given in ([0.5, -1.0], [[0.5, 1.0], [2.0, 3.0], [0.0, 0.0]]):
        images = generate_from_saved_model(tmp_path / "m", 3, seed=5, angles=given)
        z = seeded_normal(row_seeds(5, 3), 2) + np.array(given, "float32")
        np.testing.assert_allclose(images, tf.sigmoid(model.decoder(z)), atol=1e-6)


def test_a_model_without_a_prior_is_exported_without_what_draws_from_it(tmp_path):
    model = built(Autoencoder(seed=0))
    signatures = load(export_decoder(model, tmp_path / "m", with_encoder=True))
    assert sorted(signatures) == ["decode", "encode", "reconstruct", "serving_default"]
    images = np.random.default_rng(0).random((5, 6, 5, 1), "float32")
    weight = model.encoder.weights[0].numpy()
    code = signatures["encode"](images=tf.constant(images))
    np.testing.assert_allclose(code["z"], images.reshape(5, -1) @ weight, atol=1e-5)
    assert list(code) == ["z"]
    reconstructed = signatures["reconstruct"](images=tf.constant(images))["images"]
    expected = images.reshape(5, -1) @ weight @ model.decoder.weights[0].numpy()
    np.testing.assert_allclose(reconstructed, expected.reshape(images.shape), atol=1e-5)
    with pytest.raises(ValueError, match="'generate'"):
        generate_from_saved_model(tmp_path / "m", 3)


def test_a_model_with_two_layers_draws_from_its_own_prior(tmp_path):
    model = built(TwoLayers(seed=0))
    signatures = load(export_decoder(model, tmp_path / "m", with_encoder=True))
    seeds = np.arange(20000)
    z = signatures["generate"](seed=tf.constant(seeds))["z"].numpy()
    weight = model.down.weights[0].numpy().astype("float64")
    covariance = weight.T @ weight + np.exp(-2) * np.eye(3)  # of z₁
    error = 5 * np.sqrt(2 / len(seeds)) * np.diag(covariance).max()
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=error)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=error)
    np.testing.assert_allclose(
        generate_from_saved_model(tmp_path / "m", 9, seed=4), model.generate(9, seed=4), atol=1e-6
    )


def test_the_score_of_two_layers_is_their_bound(tmp_path):
    """Its mean over seeds against the bound in closed form: all is linear and Gaussian."""
    model = built(TwoLayers(seed=0))
    signatures = load(export_decoder(model, tmp_path / "m", with_encoder=True))
    x = np.random.default_rng(0).random((1, 6, 5, 1), "float32")
    w, decode = model.down.weights[0].numpy().T, model.decoder.weights[0].numpy().T
    up, variance = model.up.weights[0].numpy().T, np.exp(-2)
    mean1 = x.reshape(-1) @ model.encoder.weights[0].numpy()
    mean2, var1, var2 = up @ mean1, variance * np.eye(3), variance * (np.eye(2) + up @ up.T)
    apart = np.eye(3) - w @ up  # z₁ − W z₂ = (I − W U) z₁ − W noise
    log_x = -0.5 * (
        ((x.reshape(-1) - decode @ mean1) ** 2).sum() + np.trace(decode @ var1 @ decode.T)
    )
    log_x -= 0.5 * x.size * np.log(2 * np.pi)
    spread = apart @ var1 @ apart.T + variance * w @ w.T
    log_p1 = -0.5 * (((apart @ mean1) ** 2).sum() + np.trace(spread)) / variance + 3
    log_p2 = -0.5 * ((mean2**2).sum() + np.trace(var2))
    entropies = 0.5 * 5 - 5  # without log 2π, which the priors' cancel
    elbo = log_x + log_p1 + log_p2 + entropies
    rows, seeds = tf.repeat(x, 20000, axis=0), tf.range(20000, dtype="int64")
    scores = signatures["score"](images=rows, seed=seeds)["elbo"]
    error = np.std(scores) / np.sqrt(len(seeds))
    assert np.mean(scores) == pytest.approx(elbo, abs=4 * error)
    assert error < 0.2


def test_the_score_obeys_an_overridden_regularizer(tmp_path):
    class Doubled(VAE):
        def regularizer(self, z_mean, z_log_var):
            return 2 * Normal(z_mean, z_log_var).kl()

        def prior(self):
            return Normal(np.zeros((1, 2), "float32"), np.zeros((1, 2), "float32"))

    model, usual = (built(kind(latent_dim=2, hidden_units=(8,), seed=0)) for kind in (Doubled, VAE))
    images = np.random.default_rng(0).random((5, 6, 5, 1), "float32")
    given = {"images": tf.constant(images), "seed": tf.range(5, dtype="int64")}
    scores = [
        load(export_decoder(each, tmp_path / str(i), with_encoder=True))["score"](**given)["elbo"]
        for i, each in enumerate((model, usual))
    ]
    z_mean, z_log_var = usual.encode(images)
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(axis=1)
    np.testing.assert_allclose(scores[1] - scores[0], kl, rtol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_inside(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        models = built(VAE(latent_dim=3, hidden_units=(8,), seed=0)), built(Autoencoder())
    finally:
        keras.config.set_dtype_policy("float32")
    seeds = tf.range(3, dtype="int64")
    inputs = {"images": tf.ones((3, 6, 5, 1)), "seed": seeds, "z": tf.ones((3, 3))}
    for model in models:
        signatures = load(export_decoder(model, tmp_path / model.name, with_encoder=True))
        for signature in signatures.values():
            names = signature.structured_input_signature[1]
            for name, output in signature(**{name: inputs[name] for name in names}).items():
                assert output.dtype == (tf.string if name == "png_bytes" else tf.float32)
    z = load(tmp_path / models[0].name / "1")["generate"](seed=seeds)["z"]
    np.testing.assert_array_equal(z, seeded_normal(seeds, 3))


def test_a_model_that_cannot_be_exported_says_why(tmp_path):
    with pytest.raises(TypeError, match=r"'model'.*decode"):
        export_decoder(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "m")

    class Decoder(Model):
        latent_dim, likelihood = 3, Bernoulli()

        def decode(self, z):
            return ops.reshape(z, (-1, *self.image_shape))

    model = built(Decoder(), (3, 1))
    assert sorted(load(export_decoder(model, tmp_path / "m"))) == ["decode", "serving_default"]
    with pytest.raises(ValueError, match="'with_encoder'"):
        export_decoder(model, tmp_path / "m", with_encoder=True)


def _numpy(model, z):
    return np.asarray(z)


def _branch(model, z):
    return z if ops.sum(z) > 0 else -z


def _untracked(model, z):
    with tf.init_scope():
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [2.0]), 0.0)
    _untracked.kept = table
    return z * table.lookup(tf.constant("a"))


@pytest.mark.parametrize("change", [_numpy, _branch, _untracked])
def test_a_model_that_tensorflow_does_not_compile_says_why(change, tmp_path):
    class Own(VAE):
        def decode(self, z):
            return self.decoder(change(self, z))

    model = built(Own(latent_dim=2, hidden_units=(4,), seed=0))
    words = r"'model'.*(the signature 'serving_default'|the SavedModel).*Own, whose code raised"
    with pytest.raises(ValueError, match=words):
        export_decoder(model, tmp_path / "m")
    assert not (tmp_path / "m" / "1").exists()


def test_a_full_disk_is_one_wherever_it_is_found(model, tmp_path, monkeypatch):
    def full(*args):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr("tensorflow.saved_model.save", full)
    with pytest.raises(OSError, match="No space left on device"):
        export_decoder(model, tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


def test_a_saved_model_at_a_path_of_its_own(model, tmp_path):
    path = export_saved_model(model, tmp_path / "saved")
    assert path == tmp_path / "saved"
    assert sorted(load(path)) == sorted(BY_NAME)
    np.testing.assert_allclose(
        generate_from_saved_model(path, 3, seed=4), model.generate(3, seed=4), atol=1e-6
    )
    with pytest.raises(ValueError, match="'path'"):
        export_saved_model(model, path)


def test_the_versions_of_a_model_are_read_without_tensorflow():
    """So that `vae-tf serve` checks its arguments at once."""
    code = (
        "import sys\n"
        "from vae_tf.export.versions import check_labels, check_versions\n"
        "check_labels({'stable': 1}, check_versions(sys.argv[1]))\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    )
    run_python(code, REPOSITORY / "saved_models" / "mnist_z10")


def test_the_readme_has_the_table_of_signatures():
    """A row for each: its name, what it needs, its inputs and its outputs, in backquotes."""
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    rows = {
        line.split("|")[1].strip(" `"): line for line in lines if re.match(r"\| `\w+` \|", line)
    }
    for name, signature in BY_NAME.items():
        assert name in rows, name
        _, _, needs, inputs, outputs, _ = rows[name].split("|")
        assert quoted(needs) == [need for need in signature.needs if need != "picture"]
        assert ("picture" in needs) == ("picture" in signature.needs)
        assert ("encoder" in needs.replace("`encode`", "")) == signature.of_encoder
        assert quoted(inputs) == [*signature.inputs]
        assert quoted(outputs) == [*signature.outputs, *signature.or_outputs]
        for key in (*signature.inputs, *signature.outputs):
            dtype = DTYPES.get(key, "float32")
            assert re.search(rf"`{key}`[^`]* {dtype}", rows[name]), (name, key)


def quoted(text):
    return re.findall(r"`(\w+)`", text)


def warmup(path):
    records = tf.data.TFRecordDataset(str(path / "assets.extra" / "tf_serving_warmup_requests"))
    return [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in records]


def test_the_warm_up_file_has_every_signature_and_batch_size(model, tmp_path):
    path = export_decoder(model, tmp_path / "m", with_encoder=True)
    signatures, sizes = load(path), {}
    for log in warmup(path):
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](**inputs)
        lengths = {len(array) for array in (*inputs.values(), *outputs.values())}
        assert len(lengths) == 1
        sizes.setdefault(request.model_spec.signature_name, []).extend(lengths)
    assert sizes == {name: [1, 2, 4, 8, 16, 32, 64] for name in signatures}


def test_versions_are_counted_and_never_overwritten(model, tmp_path):
    out = tmp_path / "m"
    assert [export_decoder(model, out).name for _ in range(2)] == ["1", "2"]
    assert export_decoder(model, out, version=7).name == "7"
    assert next_version(out) == 8
    assert versions(out) == [1, 2, 7]
    assert find_saved_model(out) == out / "7"
    before = (out / "2" / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(ValueError, match="version"):
        export_decoder(model, out, version=2)
    assert (out / "2" / "saved_model.pb").stat().st_mtime_ns == before
    assert sorted(path.name for path in out.iterdir()) == ["1", "2", "7"]


def test_a_failed_export_leaves_nothing_behind(model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("tensorflow.saved_model.save", fail)
    with pytest.raises(OSError, match="No space"):
        export_decoder(model, tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


def test_refusals(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="'out'"):
        export_decoder(model, tmp_path / "file")
    with pytest.raises(ValueError, match="'version'"):
        export_decoder(model, tmp_path / "m", version=0)
    with pytest.raises(ValueError, match="fit"):
        export_decoder(VAE(), tmp_path / "m")
    with pytest.raises(ValueError, match="SavedModel"):
        generate_from_saved_model(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_decoder_that_ships_draws_digits():
    """Its mean brightness is MNIST's (0.1307, as its users know it), and its draws differ."""
    images = generate_from_saved_model(REPOSITORY / "saved_models" / "mnist_z10", 200, seed=0)
    assert images.shape == (200, 28, 28, 1)
    assert images.mean() == pytest.approx(0.1307, abs=0.02)
    assert images[:, :3].mean() < 0.01  # MNIST keeps its margin empty
    assert images.std(axis=0).max() > 0.3
