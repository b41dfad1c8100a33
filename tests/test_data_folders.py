"""Folders of image files: which are read, which part and label each has, and what its pixels become."""

import json
import os
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vae_tf import memory
from vae_tf.data import folders, load
from vae_tf.errors import in_a_shell


def put(path, image, **options):
    """Write an image; returns the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path.parent


def flat(value, shape=(4, 5)):
    """An image that can be found again: all of one value."""
    return np.full(shape, value, np.uint8)


def values(x):
    return sorted(int(v) for v in x.reshape(len(x), -1)[:, 0])


def refused(folder, **options):
    with pytest.raises(ValueError, match="Invalid value for argument 'data'") as error:
        load(data=folder, **options)
    return str(error.value)


# The split that is there.


@pytest.mark.parametrize(
    "arrangement", ["{part}/{label}", "images/{part}/{label}", "{label}/{part}"]
)
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TEST")])
def test_a_split_into_folders_is_taken_as_it_is(tmp_path, capsys, arrangement, names):
    for part, (name, count) in enumerate(zip(names, (6, 2, 4), strict=True)):
        for number in range(count):
            label = "ab"[number % 2]
            place = tmp_path / "set" / arrangement.format(part=name, label=label)
            put(place / f"{number}.png", flat(100 * (part % 2) + 50 * (part // 2) + number))
    images = load(data=tmp_path / "set")
    assert values(images.x_train) == [*range(6)]
    assert values(images.x_val) == [100, 101]
    assert values(images.x_test) == [50, 51, 52, 53]
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        assert [y == "ab"[v % 2] for y, v in zip(y, x[:, 0, 0, 0], strict=True)] == [True] * len(x)
    assert sorted(images.y_val) == ["a", "b"]
    assert "set: split as its folders are (train 6, val 2, test 4)" in capsys.readouterr().err


def test_images_to_validate_on_are_the_test_images_where_there_are_no_others(tmp_path, capsys):
    for number in range(4):
        put(tmp_path / "train" / f"{number}.png", flat(number))
        put(tmp_path / "valid" / f"{number}.png", flat(10 + number))
    put(tmp_path / "cover.png", flat(99))
    images = load(data=tmp_path)
    assert (values(images.x_train), values(images.x_test)) == ([0, 1, 2, 3], [10, 11, 12, 13])
    assert images.x_val is images.y_train is images.y_test is None
    said = capsys.readouterr().err
    assert "validate on are the test images" in said
    assert "1 image beside these folders passed over" in said


def test_a_folder_train_among_others_is_a_label(tmp_path):
    for label in ("car", "train"):
        for number in range(4):
            put(tmp_path / "vehicles" / label / f"{number}.png", flat(number))
    images = load(data=tmp_path)
    assert {*images.y_train, *images.y_test} == {"car", "train"}  # without what is common to all


# Which files are images.


def test_other_files_are_passed_over_with_a_word(tmp_path, capsys):
    for number in range(3):
        put(tmp_path / f"{number}.PNG", flat(number))
    for name in ("readme.txt", "labels.csv"):
        (tmp_path / name).write_text("not an image")
    assert len(load(data=tmp_path).x_train) == 2
    assert "passed over, for no images: 2 files (such as 'labels.csv')" in capsys.readouterr().err
    shutil.copy(tmp_path / "0.PNG", tmp_path / "without_suffix")
    assert len(load(data=tmp_path).x_train) == 3


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "train.npz").write_bytes(b"")
    assert "holds no images, but 'train.npz'" in refused(tmp_path)


def test_hidden_files_and_those_of_archives_of_macs_are_nothing_to_speak_of(tmp_path, capsys):
    for name in ("a/0.png", "a/1.png", ".cache/0.png", "__MACOSX/0.png", "a/._0.png"):
        put(tmp_path / name, flat(1))
    images = load(data=tmp_path)
    assert len(images.x_train) + len(images.x_test) == 2
    assert capsys.readouterr().err == ""


def test_links_are_followed_and_do_not_go_round(tmp_path):
    for number in range(3):
        put(tmp_path / "source" / f"{number}.png", flat(number))
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "a").symlink_to(tmp_path / "source")
    (tmp_path / "source" / "round").symlink_to(tmp_path / "chosen")
    images = load(data=tmp_path / "chosen")
    assert values(np.concatenate([images.x_train, images.x_test])) == [0, 1, 2]
    (tmp_path / "source" / "9.png").symlink_to(tmp_path / "nothing")
    assert "'a/9.png'" in refused(tmp_path / "chosen")


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    put(put(tmp_path / "open" / "0.png", flat(1)).parent / "locked" / "0.png", flat(1))
    scandir = os.scandir

    def refuse(path):
        if pathlib.Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "'locked' in it (Permission denied)" in refused(tmp_path)


def test_every_damaged_image_is_counted(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for number in range(4):
        put(tmp_path / f"{number}.jpg", noise)
        if number % 2:
            path = tmp_path / f"{number}.jpg"
            path.write_bytes(path.read_bytes()[:1500])
    assert "'1.jpg', which cannot be read as an image (image file is truncated" in refused(tmp_path)
    assert "and 1 more such file." in refused(tmp_path)


def bomb(side):
    """A small PNG that says it has `side`² pixels."""

    def chunk(name, content):
        whole = name + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side // 8 + 1) * 100)
    parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_a_decompression_bomb_is_an_image_that_cannot_be_used(tmp_path):
    put(tmp_path / "0.png", flat(1))
    (tmp_path / "bomb.png").write_bytes(bomb(20_000))
    assert "'bomb.png', which cannot be read as an image (Image size (400000000" in refused(
        tmp_path
    )


def test_what_does_not_fit_into_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    for number in range(3):
        put(tmp_path / f"{number}.png", flat(number, (100, 200, 3)))
    monkeypatch.setattr(memory, "free", lambda: 300_000)  # 3 · 100 · 200 · 3 bytes, twice: 360,000
    monkeypatch.setattr(folders.image_files, "read", None)
    with in_a_shell():
        words = refused(tmp_path)
    assert "3 images of 100×200×3" in words
    assert "--resize 64" in words
    monkeypatch.undo()
    monkeypatch.setattr(memory, "free", lambda: 300_000)
    assert load(data=tmp_path, resize=64).image_shape == (64, 64, 3)


# Names.


def test_a_label_folder_that_is_no_utf8_has_a_name_that_can_be_written(tmp_path):
    for name in (b"caf\xe9", b"tea"):
        folder = os.fsencode(tmp_path / "set") + b"/" + name
        os.makedirs(folder)
        for number in range(3):
            shutil.copy(put(tmp_path / "0.png", flat(1)) / "0.png", folder + b"/%d.png" % number)
    images = load(data=tmp_path / "set")
    labels = {*images.y_train.tolist(), *images.y_test.tolist()}
    assert len(labels) == 2
    json.dumps([*labels], ensure_ascii=False).encode()  # which surrogates cannot be


def test_control_characters_of_names_are_written_out(tmp_path):
    put(tmp_path / "\x1b[31m\r0.png", flat(0, (4, 4)))
    put(tmp_path / "1.png", flat(0, (5, 5)))
    assert "'\\x1b[31m\\r0.png'" in refused(tmp_path)
    images = load(data=put(tmp_path / "\x1b[2Jset" / "1.png", flat(0)).parent, resize=4)
    assert {*images.y_train, *images.y_test} == {".", "\\x1b[2Jset"}


# Pixels.


def test_transparency_is_composited_on_the_background_that_is_named(tmp_path):
    random = np.random.default_rng(0)
    rgba = random.integers(0, 256, (4, 6, 7, 4)).astype(np.uint8)
    for number, image in enumerate(rgba):
        put(tmp_path / f"{number}.png", image)
    assert "4 files (such as '0.png')" in refused(tmp_path)
    assert "background='white'" in refused(tmp_path)
    for name, colour in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        images = load(data=tmp_path, background=name)
        found = np.concatenate([images.x_train, images.x_test]).astype(float)
        alpha = rgba[..., 3:] / 255
        expected = alpha * rgba[..., :3] + (1 - alpha) * np.array(colour)
        order = [np.abs(found - each).max(axis=(1, 2, 3)).argmin() for each in expected]
        np.testing.assert_allclose(found[order], expected, atol=1)  # rounding
    rgba[..., 3] = 255
    for number, image in enumerate(rgba):  # an alpha channel that hides nothing
        put(tmp_path / f"{number}.png", image)
    assert load(data=tmp_path).image_shape == (6, 7, 3)


def test_grey_stays_grey_on_grey_and_becomes_coloured_on_a_colour(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", np.full((4, 4, 2), 128, np.uint8))  # grey and alpha
    assert values(load(data=tmp_path, background="black").x_train) == [64, 64]
    assert load(data=tmp_path, background="white").image_shape == (4, 4, 1)
    assert load(data=tmp_path, background="red").image_shape == (4, 4, 3)


@pytest.mark.parametrize("beside", [False, True])
def test_16_bits_are_kept_as_floats(tmp_path, beside):
    deep = np.random.default_rng(0).integers(0, 65536, (3, 4, 5)).astype(np.uint16)
    for number, image in enumerate(deep):
        put(tmp_path / f"{number}.png", image)
    if beside:
        put(tmp_path / "9.png", flat(51))
    images = load(data=tmp_path)
    found = np.concatenate([images.x_train, images.x_test])[..., 0]
    assert found.dtype == np.float32
    expected = [*(deep / 65535), *([np.full((4, 5), 0.2)] if beside else [])]
    for image in expected:
        assert np.abs(found - image).max(axis=(1, 2)).min() < 1e-6


def test_16_bits_that_hold_bytes_are_bytes(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", (flat(40 + number) * np.uint16(257)).astype(np.uint16))
    images = load(data=tmp_path)
    assert images.x_train.dtype == np.uint8
    assert values(np.concatenate([images.x_train, images.x_test])) == [40, 41, 42]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_are_refused_with_the_line_that_converts_them(tmp_path, dtype):
    for number in range(3):
        put(tmp_path / f"{number}.tif", np.full((4, 4), 7, dtype))
    words = refused(tmp_path)
    assert "Image.open('0.tif')" in words
    assert "np.save('0.npy', " in words


def test_an_exif_orientation_turns_the_image_upright(tmp_path):
    scene = np.zeros((40, 60, 3), np.uint8)
    scene[:20] = 200  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    for number in range(2):
        put(tmp_path / f"{number}.jpg", np.rot90(scene).copy(), exif=exif, quality=95)
    x = load(data=tmp_path).x_train[0]
    assert x.shape == scene.shape
    assert np.abs(x[2:18].astype(int) - 200).max() < 8
    assert x[22:].max() < 8


def test_palettes_of_grey_are_grey_and_what_is_lost_is_said(tmp_path, capsys):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for number in range(3):
        put(tmp_path / "grey" / f"{number}.png", grey.convert("P"))
        put(
            tmp_path / "moving" / f"{number}.gif",
            grey,
            save_all=True,
            append_images=[grey.rotate(90)],
        )
        put(tmp_path / "print" / f"{number}.jpg", grey.convert("CMYK"))
    np.testing.assert_array_equal(load(data=tmp_path / "grey").x_train[0, ..., 0], np.asarray(grey))
    load(data=tmp_path / "moving")
    load(data=tmp_path / "print")
    said = capsys.readouterr().err
    assert "3 files (such as '0.gif') have several frames or pages: the first is taken" in said
    assert "3 files (such as '0.jpg') are in CMYK" in said


def test_arrays_in_files_are_images_too(tmp_path):
    x = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    for number, image in enumerate(x):
        np.save(tmp_path / f"{number}.npy", image)
    images = load(data=tmp_path)
    assert images.image_shape == (4, 5, 1)
    assert np.isin(images.x_train, x).all()
    np.save(tmp_path / "many.npy", x)
    assert "'many.npy'" in refused(tmp_path)


# One size.


def test_images_of_several_sizes_are_refused_with_the_option_that_mends_it(tmp_path):
    for number, shape in enumerate([(4, 6), (4, 6), (9, 3)]):
        put(tmp_path / f"{number}.png", flat(number, shape))
    assert "2 of 4×6 (such as '0.png'), 1 of 9×3 (such as '2.png'). Bring" in refused(tmp_path)
    assert "resize='4x6'" in refused(tmp_path)
    assert load(data=tmp_path, resize="4x6").image_shape == (4, 6, 1)


@pytest.mark.parametrize("size", [32, "32", (32, 32), "32x32", "32×32"])
def test_images_are_scaled_until_they_cover_the_size_and_cut_to_their_centre(tmp_path, size):
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = (200, 100, 50)  # the square in the middle, on black
    for number, image in enumerate((wide, wide.transpose(1, 0, 2), wide)):
        put(tmp_path / f"{number}.png", image)
    images = load(data=tmp_path, resize=size)
    both = np.concatenate([images.x_train, images.x_test]).astype(int)
    assert both.shape == (3, 32, 32, 3)
    assert np.abs(both[:, 3:-3, 3:-3] - (200, 100, 50)).max() <= 2  # the filter reaches 3 pixels


def test_height_comes_before_width_and_floats_stay_in_their_range(tmp_path):
    x = np.random.default_rng(0).random((3, 20, 30)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    images = load(data=tmp_path / "a.npz", resize="8x12")
    assert images.image_shape == (8, 12, 1)
    assert images.x_train.dtype == np.float32
    assert 0 <= images.x_train.min() <= images.x_train.max() <= 1
    means = [a.mean() for a in np.concatenate([images.x_train, images.x_test])]
    assert sorted(means) == pytest.approx(sorted(x.mean(axis=(1, 2))), abs=0.02)
    assert load("digits", resize=16).image_shape == (16, 16, 1)


@pytest.mark.parametrize("size", ["64x", "x", "0", (1, 2, 3), "64x48x3", "big"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises((ValueError, TypeError), match="'resize'"):
        load("digits", resize=size)
