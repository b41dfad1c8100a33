"""Images from the four sources, and what is said of those that cannot be used."""

import collections
import gzip
import math
import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from vae_tf import data, memory, training
from vae_tf.data import check_images, load
from vae_tf.errors import in_a_shell

IDX = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def rows(images, labels):
    """Images with their labels as a multiset, in which their order plays no part."""
    return collections.Counter((i.tobytes(), int(y)) for i, y in zip(images, labels, strict=True))


# Digits.


def test_digits_are_those_of_scikit_learn_rescaled_to_bytes():
    images, reference = load("digits"), load_digits()
    assert images.name == "digits"
    assert images.image_shape == (8, 8, 1)
    assert (len(images.x_train), len(images.x_test)) == (1437, 360)
    assert images.x_train.dtype == images.x_test.dtype == np.uint8
    values = np.unique(images.x_train)
    np.testing.assert_allclose(values, np.arange(17) * 255 / 16, atol=0.5)
    back = [np.rint(x[..., 0] * (16 / 255)) for x in (images.x_train, images.x_test)]
    found = rows(back[0], images.y_train) + rows(back[1], images.y_test)
    assert found == rows(reference.images, reference.target)


def test_digits_are_split_by_class_and_always_alike():
    images, again = load("digits"), load()
    for name in ("x_train", "x_test", "y_train", "y_test"):
        np.testing.assert_array_equal(getattr(images, name), getattr(again, name))
    total = np.bincount(load_digits().target)
    np.testing.assert_allclose(np.bincount(images.y_test), total * (360 / 1797), atol=1)


# tensorflow-datasets.


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    """What is on this machine is read; whatever goes wrong, nothing is fetched or written."""

    def refuse(self, **kwargs):
        if not pathlib.Path(self.data_dir).is_dir():
            raise OSError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)


@pytest.mark.parametrize(
    ("name", "shape"), [("fashion_mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))]
)
def test_image_data_sets_load_by_name(name, shape):
    with tfds.testing.mock_data(num_examples=40):  # knows of no split but the one it is asked for
        images = load(name)
    assert images.name == name
    assert images.x_train.shape == (36, *shape)
    assert images.x_test.shape == (4, *shape)
    assert images.x_train.dtype == images.x_test.dtype == np.uint8
    assert images.x_train.max() > 200
    assert images.y_train.shape == (36,)
    assert set(images.y_train) | set(images.y_test) <= set(range(10))
    assert len(set(images.y_train)) > 3


@pytest.mark.slow
def test_colour_trains(tmp_path):
    config = training.TrainConfig(
        "cifar10", latent_dim=2, hidden_units=(8,), steps=5, run=str(tmp_path / "run")
    )
    with tfds.testing.mock_data(num_examples=300):
        record = training.train(config, progress=False)
    assert record["data"]["image_shape"] == [32, 32, 3]
    # The mock's pixels are noise: an undecided decoder pays ln 2 for each, and little beats it.
    nothing_learned = 32 * 32 * 3 * math.log(2)
    assert record["test"]["reconstruction_loss"] == pytest.approx(nothing_learned, rel=0.02)
    assert training.load_run(tmp_path / "run")[1].generate(2, seed=0).shape == (2, 32, 32, 3)


def read_idx(name):
    """The IDX format: two zero bytes, the type (8: bytes), the rank, the sizes, the data."""
    raw = gzip.decompress((IDX / f"{name}.gz").read_bytes())
    assert raw[:3] == b"\0\0\x08"
    shape = np.frombuffer(raw, ">u4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


@pytest.mark.slow
def test_mnist_is_mnist():
    directory = os.environ.get("TFDS_DATA_DIR")
    if directory is None or not (pathlib.Path(directory) / "mnist").is_dir():
        pytest.skip("needs MNIST: set TFDS_DATA_DIR to a directory of tensorflow-datasets with it")
    images = load("mnist")
    assert images.x_train.shape == (60_000, 28, 28, 1)
    assert images.x_test.shape == (10_000, 28, 28, 1)
    assert images.x_train.dtype == np.uint8
    np.testing.assert_array_equal(  # the published counts of the ten digits
        np.bincount(images.y_train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    )
    if IDX.is_dir():  # in another order: tensorflow-datasets shuffles when it prepares
        for x, y, part in (
            (images.x_train, images.y_train, "train"),
            (images.x_test, images.y_test, "t10k"),
        ):
            originals = read_idx(f"{part}-images-idx3-ubyte"), read_idx(f"{part}-labels-idx1-ubyte")
            assert rows(x, y) == rows(*originals)


def test_a_near_name_is_suggested():
    with pytest.raises(ValueError, match=r"'dataset'.*'mnsit'.*Did you mean 'mnist'"):
        load("mnsit")
    with pytest.raises(ValueError, match=r"'dataset'.*Did you mean 'digits'.*data='FOLDER'"):
        load("digit")


@pytest.mark.parametrize("name", ["", "mnist/foo", "imdb_reviews", "moving_mnist"])
def test_a_name_that_is_no_image_data_set_is_refused(name):
    with pytest.raises(ValueError, match=r"'dataset'.*image") as error:
        load(name)
    assert repr(name) in str(error.value)
    assert "download" not in str(error.value)  # which was not tried


def test_a_version_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"'dataset'.*9\.9\.9"):
        load("mnist:9.9.9")


@pytest.mark.parametrize("name", [None, 5])
def test_a_name_that_is_no_string_is_refused(name):
    with pytest.raises((TypeError, ValueError), match="'dataset'"):
        load(name)


def test_a_data_set_that_cannot_be_downloaded_leaves_a_way_out():
    with pytest.raises(ValueError, match="'dataset'") as error:
        load("kmnist")
    for part in ("'kmnist'", "OSError: no route to host", "TFDS_DATA_DIR", "digits", "data="):
        assert part in str(error.value)


# Archives.


def ramp(num=20, shape=(4, 4)):
    """Bytes that differ from image to image, so that each can be found again."""
    return (np.arange(num * math.prod(shape)).reshape(num, *shape) % 251).astype(np.uint8)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("labels", ["y", "labels"])
@pytest.mark.parametrize("key", ["x", "images", "arr_0"])
def test_an_archive_of_images_alone_is_split(tmp_path, key, labels):
    path = saved(tmp_path / "mine.npz", **{key: ramp()[::-1], labels: np.arange(20)[::-1]})
    images = load(data=path)
    assert images.name == "mine"
    assert (images.x_train.shape, images.x_test.shape) == ((18, 4, 4, 1), (2, 4, 4, 1))
    assert sorted([*images.y_train, *images.y_test]) == list(range(20))
    np.testing.assert_array_equal(images.x_train[..., 0], ramp()[images.y_train])
    np.testing.assert_array_equal(images.x_test[..., 0], ramp()[images.y_test])
    again = load(data=str(path))
    np.testing.assert_array_equal(again.y_test, images.y_test)


def test_an_archive_with_a_test_set_is_kept_as_it_is(tmp_path):
    x, held = ramp(20, (4, 3, 3)), ramp(5, (4, 3, 3))[::-1]
    path = saved(tmp_path / "a.npz", x_train=x, x_test=held, y_train=np.arange(20))
    images = load(data=path)
    np.testing.assert_array_equal(images.x_train, x)
    np.testing.assert_array_equal(images.x_test, held)
    np.testing.assert_array_equal(images.y_train, np.arange(20))
    assert images.y_test is None


def test_a_training_set_alone_gives_up_a_tenth(tmp_path):
    path = saved(tmp_path / "a.npz", x_train=ramp(40), y_train=np.arange(40))
    images = load(data=path)
    assert (len(images.x_train), len(images.x_test)) == (36, 4)
    assert not set(images.y_train) & set(images.y_test)


def test_the_hold_out_is_one_image_at_least(tmp_path):
    images = load(data=saved(tmp_path / "a.npz", x=ramp(2)))
    assert (len(images.x_train), len(images.x_test)) == (1, 1)
    assert (images.x_train != images.x_test).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 5), (4, 5, 1)), ((4, 5, 1), (4, 5, 1)), ((4, 5, 3), (4, 5, 3)), ((20,), (1, 20, 1))],
)
def test_the_shapes_of_an_archive(tmp_path, shape, expected):
    images = load(data=saved(tmp_path / "a.npz", x_train=ramp(9, shape), x_test=ramp(3, shape)))
    assert images.image_shape == expected
    np.testing.assert_array_equal(images.x_train.reshape(9, *shape), ramp(9, shape))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_that_were_bytes_come_back_as_bytes(tmp_path, dtype):
    x = np.arange(256, dtype=np.uint8).reshape(16, 4, 4)
    divided, multiplied = x / np.asarray(255, dtype), x * np.asarray(1 / 255, dtype)
    images = load(data=saved(tmp_path / "a.npz", x_train=divided, x_test=multiplied))
    for found in (images.x_train, images.x_test):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[..., 0], x)


def test_other_floats_stay_floats(tmp_path):
    x = np.random.default_rng(0).random((9, 4, 4))
    images = load(data=saved(tmp_path / "a.npz", x_train=x, x_test=x))
    assert images.x_train.dtype == np.float32
    np.testing.assert_array_equal(images.x_train[..., 0], x.astype("float32"))


@pytest.mark.parametrize("form", ["one-hot", "one-hot floats", "column", "floats"])
def test_labels_in_other_forms_are_the_numbers_of_their_classes(tmp_path, form):
    y = np.arange(20) % 10
    given = {
        "one-hot": np.eye(10, dtype=int)[y],
        "one-hot floats": np.eye(10)[y],
        "column": y[:, None],
        "floats": y.astype(float),
    }[form]
    images = load(data=saved(tmp_path / "a.npz", x_train=ramp(), x_test=ramp(), y_train=given))
    assert images.y_train.dtype.kind == "i"
    np.testing.assert_array_equal(images.y_train, y)


def test_values_below_0_are_taken_where_the_range_allows_them(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 4, 4)).astype("float32")
    x[:, 0, 0] = -1  # -255 / 255, which is no byte
    path = saved(tmp_path / "a.npz", x_train=x, x_test=np.sign(x))
    with pytest.raises(ValueError, match=r"floats in \[0, 1\].*likelihood='gaussian'"):
        load(data=path)
    images = load(data=path, value_range=data.ANY_VALUE)
    np.testing.assert_array_equal(images.x_train[..., 0], x)
    np.testing.assert_array_equal(images.x_test[..., 0], np.sign(x))


def test_only_the_arrays_that_are_needed_are_read(tmp_path):
    path = saved(tmp_path / "a.npz", x=ramp(), meta=np.array([{}])).rename(tmp_path / "A.NPZ")
    assert len(load(data=path).x_train) == 18
    np.save(tmp_path / "b.npy", ramp())
    np.testing.assert_array_equal(load(data=tmp_path / "b.npy").x_train, load(data=path).x_train)


def test_an_archive_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path, monkeypatch
):
    path = saved(tmp_path / "a.npz", x=ramp(100, (40, 40)))
    monkeypatch.setattr(memory, "free", lambda: 300_000)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(ValueError, match=r"'data'.*100 images of 40×40.*resize=64"):
        load(data=path)


def test_a_validation_set_in_an_archive_is_kept(tmp_path):
    parts = {"x_train": ramp(9), "x_val": ramp(3), "y_val": np.arange(3)}
    images = load(data=saved(tmp_path / "a.npz", **parts, x_test=ramp(2)))
    assert (len(images.x_train), len(images.x_val), len(images.x_test)) == (9, 3, 2)
    np.testing.assert_array_equal(images.y_val, np.arange(3))
    assert len(load(data=saved(tmp_path / "b.npz", **parts)).x_test) == 3


@pytest.mark.parametrize("name", ["x.npz", "photos", "a/b"])
def test_a_path_in_the_place_of_a_name_is_told_how_it_is_given(tmp_path, monkeypatch, name):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"'dataset'.*given as data='{name}'"):
        load(name)
    with in_a_shell(), pytest.raises(ValueError, match=f"given as --data {name}"):
        load(name)


def test_booleans_stay_booleans(tmp_path):
    images = load(data=saved(tmp_path / "a.npz", x=ramp() > 100))
    assert images.x_train.dtype == bool


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"foo": ramp(), "bar": ramp()}, r"'data'.*x_train.*\['bar', 'foo'\].*np\.savez"),
        ({}, "'data'.*no arrays"),
        ({"x_test": ramp()}, "'data'.*x_train"),
        ({"x": ramp(), "y": np.arange(3)}, r"a\.npz: y.*one label for each of 20 images.*3 labels"),
        ({"x": ramp(), "y": np.array(5)}, r"a\.npz: y.*one label for each of 20 images"),
        ({"x_train": ramp(), "x_test": ramp(3, (4, 5))}, r"'data'.*\(4, 4, 1\).*\(4, 5, 1\)"),
        ({"x": ramp(1)}, "data .number of images.*at least 2"),
        ({"x": ramp()[:0]}, r"a\.npz: x.*at least one image"),
        ({"x": ramp() / 100}, r"a\.npz: x.*floats in \[0, 1\]"),
        ({"x_train": ramp(), "x_test": ramp() + np.nan}, r"a\.npz: x_test.*320 NaN"),
        ({"x": np.array([{}])}, r"'data'.*numeric arrays.*a\.npz.*np\.stack"),
        (
            {"x": ramp(20, (3, 28, 28))},
            r"channels last.*\(20, 3, 28, 28\).*x\.transpose\(0, 2, 3, 1\)",
        ),
        ({"x": ramp(), "y": np.ones((20, 3))}, r"a\.npz: y.*one-hot rows.*\(20, 3\).*y\[:, 0\]"),
        (
            {"x": ramp(), "y": np.linspace(0, 1, 20)},
            r"a\.npz: y.*whole numbers.*numbers such as 0\.05",
        ),
    ],
)
def test_archives_that_cannot_be_used(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load(data=saved(tmp_path / "a.npz", **arrays))


def test_an_archive_of_strings_is_a_type_error(tmp_path):
    with pytest.raises(TypeError, match=r"a\.npz: x.*array of numbers.*<U1"):
        load(data=saved(tmp_path / "a.npz", x=np.array([["a"]])))


@pytest.mark.filterwarnings("ignore:unclosed file.*broken:ResourceWarning")  # np.load leaves it
@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = saved(tmp_path / "broken.npz", x=ramp())
    whole = path.read_bytes()
    flipped = whole[:200] + bytes([whole[200] ^ 255]) + whole[201:]  # fails the checksum
    path.write_bytes({"cut": whole[:300], "flipped": flipped, "text": b"hi", "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"'data'.*broken\.npz"):
        load(data=path)


def test_paths_that_hold_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("hi")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("nowhere", "'data'.*nowhere.*does not exist"),
        ("notes.txt", r"'data'.*\.npz or \.npy file, or a folder.*notes\.txt.*np\.savez"),
        ("empty", "'data'.*empty.*holds no files"),
    ):
        with pytest.raises(ValueError, match=message):
            load(data=tmp_path / name)


# Folders.


def write_images(folder, images):
    """PNG files that are called after their index; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_a_folder_of_images(tmp_path, shape):
    x = ramp(20, shape)
    images = load(data=write_images(tmp_path / "photos", x))
    assert images.name == "photos"
    assert images.y_train is images.y_test is None
    assert (len(images.x_train), len(images.x_test)) == (18, 2)
    assert images.image_shape == (4, 5, 1 if len(shape) == 2 else 3)
    both = np.concatenate([images.x_train, images.x_test]).reshape(x.shape)
    assert rows(both, np.zeros(20)) == rows(x, np.zeros(20))


def test_grey_images_among_coloured_ones_become_coloured(tmp_path):
    grey, colour = ramp(3, (4, 5)), ramp(4, (4, 5, 3))[::-1]
    write_images(tmp_path / "photos" / "a", grey)
    images = load(data=write_images(tmp_path / "photos" / "b", colour).parent)
    both = np.concatenate([images.x_train, images.x_test])
    expected = [np.stack([image] * 3, -1) for image in grey] + list(colour)
    assert rows(both, np.zeros(7)) == rows(expected, np.zeros(7))


def test_sub_folders_are_labels(tmp_path):
    for value, name in enumerate(("cats", "dogs", "owls")):
        write_images(tmp_path / "photos" / name, [np.full((4, 4), 50 * value, np.uint8)] * 5)
    (tmp_path / "photos" / ".DS_Store").write_text("not an image, and hidden")
    images = load(data=tmp_path / "photos")
    folders = np.concatenate([images.x_train, images.x_test])[:, 0, 0, 0] // 50
    labels = np.concatenate([images.y_train, images.y_test])
    assert len(set(labels)) == 3
    assert len(set(zip(folders, labels, strict=True))) == 3  # one label a folder


def test_deep_grey_images_are_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    folder = write_images(tmp_path / "photos", [deep] * 2)
    try:
        images = load(data=folder)
    except ValueError as error:  # to refuse them is as good as to rescale them
        assert "000.png" in str(error)  # noqa: PT017
    else:
        found = images.x_train[0, ..., 0] / (255 if images.x_train.dtype == np.uint8 else 1)
        np.testing.assert_allclose(found, deep / 65535, atol=1 / 255)


def test_images_of_two_sizes_are_counted(tmp_path):
    write_images(tmp_path / "photos", ramp(3, (4, 5)))
    write_images(tmp_path / "photos" / "more", ramp(1, (6, 7)))
    with pytest.raises(ValueError, match=r"'data'.*3 of 4×5.*000\.png.*1 of 6×7.*more.000\.png"):
        load(data=tmp_path / "photos")


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_a_file_that_is_no_image_is_named(tmp_path, damage):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    folder = write_images(tmp_path / "photos", [noise] * 3)
    odd = folder / "002.png"
    odd.write_bytes(b"hi" if damage == "text" else odd.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"'data'.*'002\.png', which cannot be read as an image"):
        load(data=folder)


# The contract of images.


def test_what_is_in_order_passes():
    images = ramp()
    assert np.shares_memory(check_images(images), images)
    assert check_images(images.astype("int64")).dtype == np.uint8
    np.testing.assert_array_equal(check_images(images.astype("int64")), images)
    assert check_images(images > 9).dtype == bool
    for dtype in ("float16", "float32", "float64"):
        assert check_images(np.array([[0, 0.5, 1]], dtype)).dtype == dtype
    assert check_images(np.zeros((3, 4), np.uint8)).max() == 0
    assert check_images([[0.0, 1.0]]).shape == (1, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), r"images of shape \(N, H, W\).*shape \(3,\).*x\[None\]"),
        (np.zeros((1, 2, 3, 4, 5)), r"shape \(1, 2, 3, 4, 5\)"),
        (np.zeros((0, 4, 4)), r"at least one image.*\(0, 4, 4\)"),
        (np.zeros((3, 1, 28, 28)), r"channels last.*x\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((3, 0, 4)), r"at least one image.*\(3, 0, 4\)"),
        (np.array([[0, 256]]), "integers from 0 to 255.*from 0 to 256"),
        (np.array([[-1, 7]]), "integers from 0 to 255.*from -1 to 7"),
        (np.array([[0, 1]]), "all 0 or 1.*booleans or floats"),
        (np.array([[-0.5, 0.5]]), r"floats in \[0, 1\].*from -0\.5 to 0\.5"),
        (np.array([[0, 255.0]]), r"floats in \[0, 1\].*from 0 to 255"),
        ([[1, 2], [3]], ""),
    ],
)
def test_what_is_wrong_with_images_is_said(x, message):
    with pytest.raises(ValueError, match=f"'pictures'.*{message}"):
        check_images(x, "pictures")


@pytest.mark.parametrize("x", [np.array([["a"]]), np.array([[1j]]), np.array([[None]]), None])
def test_what_is_no_number_is_a_type_error(x):
    with pytest.raises(TypeError, match=r"'pictures'.*an array of numbers"):
        check_images(x, "pictures")


def test_values_that_are_not_finite_are_counted_and_found():
    x = np.zeros((5, 4, 4))
    x[2, 3, 1], x[4, 0, 0], x[4, 1, 0] = np.inf, np.nan, np.nan
    message = r"'x'.*2 NaN and 1 infinite values in 2 of 5 images, the first at index \(2, 3, 1\)"
    with pytest.raises(ValueError, match=message):
        check_images(x)


NUMBER = r"\(?(-?[\d.e+-]*\d)\)?"


def refusal(x):
    with pytest.raises(ValueError, match="'x'") as error:
        check_images(x)
    return str(error.value)


@pytest.mark.parametrize("high", [255.0, 128.0, 300.1234567, 65535.0, 1e300])
def test_the_factor_in_the_message_mends_what_is_too_large(high):
    x = np.array([[0, high / 3, high]])
    found = re.search(rf"Divide by {NUMBER} \(multiply by {NUMBER}\)", refusal(x))
    divisor, factor = map(float, found.groups())
    assert check_images(x / divisor).max() > 0.5
    assert check_images(x * factor).max() > 0.5


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-1 / 3, 2 / 3), (-2.1179, 2.64), (-5, -1)])
def test_the_shift_in_the_message_mends_what_is_negative(low, high):
    x = np.array([[low, (low + high) / 2, high]])
    pattern = rf"\(x - {NUMBER}\) / {NUMBER} \(multiply by {NUMBER} after the shift\)"
    shift, divisor, factor = map(float, re.search(pattern, refusal(x)).groups())
    assert np.ptp(check_images((x - shift) / divisor)) == pytest.approx(1, abs=1e-4)
    assert np.ptp(check_images((x - shift) * factor)) == pytest.approx(1, abs=1e-4)


def test_one_negative_value_throughout_is_refused_like_the_others():
    assert "floats in [0, 1]" in refusal(np.full((2, 4), -5.0))


def test_the_hints_for_integers_mend_them():
    x = np.array([[0, 9, 3000]])
    divisor = re.search(r"x / (\d+)", refusal(x)).group(1)
    assert check_images(x / int(divisor)).max() == 1
    binary = np.array([[0, 1]])
    assert "x.astype('float32')" in refusal(binary)
    np.testing.assert_array_equal(check_images(binary.astype("float32")), binary)


# Binary images.


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_binary_images_are_seeded_draws_with_the_grey_values_for_means(scale):
    image = np.linspace(0, 255, 64).reshape(8, 8, 1).astype("uint8")
    x = np.repeat(image[None], 4000, axis=0)
    x = x if scale == 1 else (x * np.float32(scale))
    images = data.Images("same", x, x[:100])
    drawn = data.binarize(images, seed=3)
    assert drawn.x_train.dtype == drawn.x_test.dtype == bool
    p = image / 255
    errors = np.abs(drawn.x_train.mean(axis=0) - p) / np.maximum(np.sqrt(p * (1 - p) / 4000), 1e-9)
    assert errors.max() < 4.5  # standard errors; black and white are never drawn otherwise
    np.testing.assert_array_equal(drawn.x_train, data.binarize(images, seed=3).x_train)
    for other in (drawn.x_test, data.binarize(images, seed=4).x_train[:100]):
        assert (other != drawn.x_train[:100]).any()
