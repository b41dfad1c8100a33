"""`vae-tf generate`: which pixels it writes, where to, and how much of it is held at once."""

import functools
import pathlib
import re
import weakref

import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from PIL import Image
from plot_helpers import tiles
from small_models import Labelled, save_run

from vae_tf import VAE, cli, data, export
from vae_tf.cli import generate as command
from vae_tf.export import drawn
from vae_tf.random import row_seeds
from vae_tf.serving.server import EmbeddedServer
from vae_tf.training import load_run

SHAPES = {"grey": (8, 6), "colour": (6, 9, 3), "alpha": (4, 4, 4)}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By the name of a shape a folder with a run and its export, whose images leave [0, 1]."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        vae = VAE(2, hidden_units=(), likelihood="gaussian", seed=1)
        vae.build((None, *SHAPES[name]))
        vae.decoder.set_weights([5 * weight + 0.5 for weight in vae.decoder.get_weights()])
        save_run(vae, folder / "run")
        export.export_decoder(vae, folder / "saved")
        return folder

    return make


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.mode, np.asarray(picture)


def generate(*arguments):
    return cli.main(["generate", *map(str, arguments)])


def as_the_signature_gives(saved_model, num, seed):
    """The decoded files of `generate_png`, by TensorFlow alone and in one batch."""
    signature = tf.saved_model.load(str(saved_model / "1")).signatures["generate_png"]
    files = signature(seed=tf.constant(row_seeds(seed, num)))["png_bytes"].numpy()
    return np.stack([tf.io.decode_png(file).numpy() for file in files])


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("source", ["run", "saved"])
def test_the_pixels_are_those_of_the_signature(kind, source, made, capsys):
    expected = as_the_signature_gives(made(kind) / "saved", 101, seed=7)
    assert {0, 255} <= set(np.unique(expected))  # what is outside of [0, 1] is cut off
    assert generate(made(kind) / source, "--num", 101, "--seed", 7, "--out", "many") == 0
    assert capsys.readouterr().out == "many\n"
    paths = sorted(pathlib.Path("many").iterdir())
    assert [path.name for path in paths] == [f"{index:03}.png" for index in range(101)]
    found = [pixels(path) for path in paths]
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[expected.shape[-1]]
    assert {each[0] for each in found} == {mode}
    np.testing.assert_array_equal(np.stack([each[1] for each in found]), expected.squeeze())
    assert generate(made(kind) / source, "--num", 7, "--seed", 7, "--out", "grid.png") == 0
    found, grid = pixels("grid.png")
    height, width = expected.shape[1:3]
    assert found == mode
    cut = tiles(grid, height, width)
    cut = cut.reshape(-1, *cut.shape[2:])  # no title, no margin: tiles and gaps
    np.testing.assert_array_equal(cut[:7], expected[:7].squeeze())
    assert (cut[7:, ..., :3] == 128).all()


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_server_gives_the_same_files(protocol, made):
    expected = as_the_signature_gives(made("colour") / "saved", 70, seed=3)
    with EmbeddedServer(made("colour") / "saved", rest_port=0, grpc_port=0) as server:
        rest, grpc = f"http://{server.rest_address}", f"grpc://{server.grpc_address}"
        address = {"rest": rest, "grpc": grpc}[protocol]
        for out in ("many/", "all.npz"):
            assert generate(address, "--num", 70, "--seed", 3, "--out", out) == 0
    paths = sorted(pathlib.Path("many").iterdir())
    np.testing.assert_array_equal(np.stack([pixels(path)[1] for path in paths]), expected)
    with np.load("all.npz") as arrays:
        floats = arrays["images"]
    np.testing.assert_array_equal(np.rint(255 * floats.clip(0, 1)), expected)


# Arrays.


def test_arrays_are_what_the_model_generates(made):
    run = made("grey") / "run"
    _, model = load_run(run)
    for out in ("a.npz", "a.npy"):
        assert generate(run, "--num", 100, "--seed", 5, "--out", out) == 0
    expected = model.generate(100, seed=5)
    with np.load("a.npz") as arrays:
        assert sorted(arrays) == ["images", "seeds"]
        np.testing.assert_allclose(arrays["images"], expected, atol=1e-5)
        np.testing.assert_array_equal(arrays["seeds"], row_seeds(5, 100))
        alone, seeds = arrays["images"], arrays["seeds"]
    found = np.load("a.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, alone)
    last = next(drawn.from_model(model, "generate", seeds[-1:]))
    np.testing.assert_allclose(last[0], alone[-1], atol=1e-5)  # each seed alone gives its image


def test_a_label_goes_with_the_images_and_the_file_can_be_trained_on():
    model = Labelled(latent_dim=2, hidden_units=(), seed=0)
    model.build((None, 8, 8, 1))
    save_run(model, pathlib.Path("run"))
    assert generate("run", "--num", 70, "--label", 3, "--out", "a.npz") == 0
    with np.load("a.npz") as arrays:
        expected = model.generate(70, seed=0, condition=3)
        np.testing.assert_allclose(arrays["images"], expected, atol=1e-5)
        np.testing.assert_array_equal(arrays["labels"], np.full(70, 3))
    images = data.load(data="a.npz")
    assert images.x_train.shape == (63, 8, 8, 1)
    np.testing.assert_array_equal(images.y_train, np.full(63, 3))


def test_vectors_have_no_pixels_and_are_written_as_arrays(capsys):
    model = VAE(2, hidden_units=(), seed=0)
    model.build((None, 12))
    save_run(model, pathlib.Path("run"))
    for out in ("a.png", "folder"):
        assert generate("run", "--out", out) == 2
        message = capsys.readouterr().err
        assert re.search(r"model of pictures.*shape \(12,\).*--out images.npz", message)
    assert [path.name for path in pathlib.Path().iterdir()] == ["run"]
    assert generate("run", "--num", 3, "--out", "a.npy") == 0
    assert np.load("a.npy").shape == (3, 12)


# Many.


@pytest.mark.slow
def test_five_thousand_images(made, capsys):
    assert generate(made("grey") / "run", "--num", 5000, "--out", "many") == 0
    out, err = capsys.readouterr()
    assert out == "many\n"
    assert re.search(r"drawing: \d+/5000 images", err)
    names = sorted(path.name for path in pathlib.Path("many").iterdir())
    assert names == [f"{index:04}.png" for index in range(5000)]


class Part(np.ndarray):
    """An array that can be counted: a plain one takes no weak reference."""


@pytest.mark.parametrize("out", ["a.npz", "a.npy"])
def test_only_a_few_parts_are_held_at_once(out, monkeypatch):
    alive, most = weakref.WeakSet(), []

    def parts(args, signature, seeds, stack):
        for start in range(0, len(seeds), 64):
            part = np.full((len(seeds[start : start + 64]), 3, 3), start, "float32").view(Part)
            alive.add(Counted(part))
            most.append(len(alive))
            yield part

    class Counted:
        """Lives as long as its array."""

        def __init__(self, array):
            array.owner = self

    monkeypatch.setattr(command, "_drawn", parts)
    assert generate("anything", "--num", 5000, "--out", out) == 0
    assert max(most) <= 3
    found = np.load(out)
    found = found["images"] if out == "a.npz" else found
    np.testing.assert_array_equal(found[:, 0, 0], np.arange(5000) // 64 * 64)


# What cannot be used.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out a.jpg", r"'out'.*a directory, or a file ending in \.png, \.npy or \.npz.*'a\.jpg'"),
        ("--out full", "'out'.*new or empty.*'full'"),
        ("--out a.txt/b.png", "'out'.*below a file"),
        ("--out nowhere/many", "'out'.*directory that exists.*'nowhere/many'"),
        ("--out empty.npz", "'out'.*a file.*'empty.npz', which is a directory"),
        ("--num 1000000000000000", "'num'.*memory.*num=1000000000000000"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_drawn(options, message, made, capsys):
    pathlib.Path("full").mkdir()
    pathlib.Path("full/a.txt").write_text("hi")
    pathlib.Path("a.txt").write_text("hi")
    pathlib.Path("empty.npz").mkdir()
    before = sorted(pathlib.Path().rglob("*"))
    assert generate(made("grey") / "run", *options.split()) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(pathlib.Path().rglob("*")) == before


def test_a_grid_that_nothing_opens_is_refused(made, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert generate(made("grey") / "run", "--num", 99) == 2
    words = r"'num'.*at most 2,000 pixels.*12 by 9.*One file an image: --out DIR"
    assert re.search(words, capsys.readouterr().err)
    assert list(pathlib.Path().iterdir()) == []


@pytest.mark.parametrize("out", ["many", "a.png", "a.npz"])
def test_ctrl_c_leaves_nothing(out, made, monkeypatch, capsys):
    def parts(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(command, "_drawn", parts)
    assert generate("anything", "--out", out) == 130
    assert "Interrupted. Nothing was written." in capsys.readouterr().err
    assert list(pathlib.Path().iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_server_that_sends_something_else_is_named(content, monkeypatch, capsys):
    monkeypatch.setattr(command, "_drawn", lambda *_: iter([[content]]))
    for out in ("many", "a.png"):
        assert generate("http://localhost:1", "--num", 1, "--out", out) == 2
        assert re.search("'source'.*PNG files", capsys.readouterr().err)
    assert list(pathlib.Path().iterdir()) == []


def test_files_of_another_size_are_refused(made, monkeypatch, capsys):
    Image.fromarray(blobs(1)[0]).save("one.png")
    Image.fromarray(blobs(1, (4, 4))[0]).save("other.png")
    files = [[pathlib.Path(name).read_bytes() for name in ("one.png", "other.png")]]
    monkeypatch.setattr(command, "_drawn", lambda *_: iter(files))
    assert generate("http://localhost:1", "--num", 2, "--out", "many") == 2
    assert re.search(r"'source'.*images of one size.*\(4, 4\)", capsys.readouterr().err)
