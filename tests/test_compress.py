"""Binary images in files: what comes back, at what rate, and what is refused."""

import json

import numpy as np
import pytest
from compress_helpers import SHAPE, binary, linear_vae
from scipy.special import expit
from small_models import Autoencoder, Labelled

import vae_tf
from vae_tf import VAE
from vae_tf.applications import lossless
from vae_tf.applications.lossless import compress, decompress


@pytest.fixture(scope="module")
def model():
    return linear_vae()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.bits"


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    """A file of five images."""
    path = tmp_path_factory.mktemp("file") / "images.bits"
    compress(model, binary(5), path)
    return path.read_bytes()


@pytest.mark.parametrize(("dtype", "white"), [("bool", 1), ("uint8", 255), ("float32", 1)])
def test_images_come_back_as_they_were_given(model, path, dtype, white):
    x = binary(30).astype(dtype) * np.array(white, dtype)
    done = []
    compress(model, x, path, lambda *now: done.append(now))
    found = decompress(model, path)
    assert found.dtype == x.dtype
    assert found.tobytes() == x.tobytes()
    assert done[-1] == (60, 60)
    assert (30, 60) in done


@pytest.mark.parametrize(("shape", "count"), [((6,), 7), ((3, 5), 1), ((4, 4, 3), 30)])
def test_images_of_any_shape_and_number_come_back(path, shape, count):
    model, x = linear_vae(shape), binary(count, shape)
    compress(model, x, path)
    np.testing.assert_array_equal(decompress(model, path), x)


def test_images_of_one_colour_come_back(model, path):
    x = np.repeat([False, True], 20)[:, None, None, None] * np.ones(SHAPE, bool)
    compress(model, x, path)
    np.testing.assert_array_equal(decompress(model, path), x)


def test_the_rate_is_that_of_the_elbo(model, path):
    x = binary(1000)
    found = compress(model, x, path)
    # The ELBO in NumPy, from the weights, with 50 draws of z an image.
    kernel, bias = model.encoder.get_layer("z_mean_and_log_var").get_weights()
    w, b = next(layer for layer in model.decoder.layers if layer.name == "logits").get_weights()
    flat = x.reshape(len(x), -1).astype("float64")
    mean, log_var = np.split(flat @ kernel + bias, 2, axis=1)
    epsilon = np.random.default_rng(0).normal(size=(50, *mean.shape))
    p = expit((mean + np.exp(log_var / 2) * epsilon) @ w + b)
    log_p = np.log(np.where(flat == 1, p, 1 - p)).sum(axis=-1).mean(axis=0)
    kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1)
    bits = (kl - log_p).mean() / np.log(2) / 16
    assert found.net_rate.mean == pytest.approx(bits, rel=0.02)
    assert found.net_rate.mean < found.rate
    # and the file is what the parts say
    size = found.bits.sum() + found.initial_bits + 8 * found.header_bytes
    assert found.file_bytes == path.stat().st_size == pytest.approx(size / 8, abs=8)


def test_every_byte_that_is_changed_is_noticed(model, path, content):
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|which is none|of format"):
            decompress(model, path)


@pytest.mark.parametrize("length", [0, 3, 4, 5, 30, 60, -4, -1])
def test_a_file_that_is_cut_off_is_refused(model, path, content, length):
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match=r"damaged|which is none"):
        decompress(model, path)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match="damaged"):
        decompress(model, path)


def test_a_file_of_another_model_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other weights"):
        decompress(linear_vae(seed=1), path)
    with pytest.raises(ValueError, match=r"images of shape \(4, 4, 1\)"):
        decompress(linear_vae((5, 5)), path)


def test_other_last_bits_are_noticed(model, path, content, monkeypatch):
    path.write_bytes(content)
    right = lossless.Codec.probabilities
    monkeypatch.setattr(
        lossless.Codec, "probabilities", lambda self, z: np.nextafter(right(self, z), np.float32(1))
    )
    with pytest.raises(ValueError, match="last bits are others"):
        decompress(model, path)
    # Of either alone: the trial before decoding, and what comes out.
    monkeypatch.setattr(lossless.Codec, "probabilities", right)
    monkeypatch.setattr(lossless.Codec, "computed", lambda self: 0)
    with pytest.raises(ValueError, match="last bits are others"):
        decompress(model, path)
    computed = lossless.from_bytes(content, path).computed
    monkeypatch.setattr(lossless.Codec, "computed", lambda self: computed)
    monkeypatch.setattr(lossless.Codec, "probabilities", lambda self, z: 0.5 * right(self, z))
    with pytest.raises(ValueError, match="last bits are others"):
        decompress(model, path)


def test_what_cannot_be_decoded_is_not_written(model, path, monkeypatch):
    right, random = lossless.Codec.probabilities, np.random.default_rng(0)
    monkeypatch.setattr(lossless.Codec, "computed", lambda self: 0)
    monkeypatch.setattr(
        lossless.Codec,
        "probabilities",
        lambda self, z: right(self, z) * random.uniform(0.9, 1, SHAPE).astype("float32"),
    )
    with pytest.raises(ValueError, match="the same bits each time"):
        compress(model, binary(20), path)
    assert not any(path.parent.iterdir())


def test_an_interruption_leaves_the_file_of_before(model, path):
    path.write_bytes(b"before")

    def interrupt(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(model, binary(30), path, interrupt)
    assert path.read_bytes() == b"before"
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VAE(2, hidden_units=(), likelihood="gaussian"), "not binary"),
        (lambda: Labelled(2, hidden_units=()), "a condition, 'label'"),
        (lambda: vae_tf.HierarchicalVAE((2, 2), hidden_units=(4,)), "no `posterior`"),
        (Autoencoder, "not binary"),
    ],
)
def test_other_models_are_refused(path, make, words):
    other = make()
    other.build((None, *SHAPE))
    with pytest.raises(ValueError, match=words):
        compress(other, binary(2), path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((2, *SHAPE), 0.5, "float32"), "grey values"),
        (np.full((2, *SHAPE), 7, "uint8"), "grey values"),
        (np.zeros((2, 5, 5, 1), bool), "images of shape"),
        (np.zeros((0, *SHAPE), bool), "at least one image"),
    ],
)
def test_other_images_are_refused(model, path, x, words):
    with pytest.raises(ValueError, match=words):
        compress(model, x, path)
    assert not path.exists()


def test_a_path_that_cannot_be_written_is_told_before(model, tmp_path):
    with pytest.raises(ValueError, match="a file"):
        compress(model, binary(1), tmp_path)


@pytest.mark.slow
def test_the_commands_write_and_read_a_file(tmp_path, capsys):
    from vae_tf.cli import main
    from vae_tf.training import runs

    digits = vae_tf.load("digits")
    model = linear_vae((8, 8, 1))
    record = {
        "config": {"dataset": "digits", "data": None, "seed": 0, "binarize": "dynamic"},
        "data": runs.fingerprint(digits),
        "steps": 1,
    }
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(record))
    model.save(run / "model.keras")
    x = np.where(binary(23, (8, 8, 1)), 255, 0).astype("uint8")
    np.savez(tmp_path / "mine.npz", x=x)
    assert main(["compress", str(run), "--data", str(tmp_path / "mine.npz")]) == 0
    assert "23 of 23" in capsys.readouterr().out
    file, out = run / "compress" / "images.bits", tmp_path / "out.npz"
    assert main(["decompress", str(run), str(file), "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out)["x"], x)
    assert np.load(out)["x"].dtype == np.uint8
    metrics = json.loads((run / "compress" / "metrics.json").read_text())
    assert metrics["lossless"]["file_bytes"] == file.stat().st_size

    file.write_bytes(file.read_bytes()[:-9])
    out.unlink()
    assert main(["decompress", str(run), str(file), "--out", str(out)]) == 2
    assert "damaged" in capsys.readouterr().err
    assert not out.exists()
