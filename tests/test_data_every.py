"""Every image at a path, in its order, with its name; and what comes split."""

import numpy as np
import pytest
from helpers import blobs
from PIL import Image

from vae_tf import data
from vae_tf.errors import InvalidValueError


def folder_of(folder, *names):
    for name, image in zip(names, blobs(len(names)), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def test_a_folder_gives_every_image_by_its_name(tmp_path):
    names = ("a/2.png", "b/1.png", "a/1.png")
    x, y, found = data.load_every(folder_of(tmp_path, *names))
    assert found == sorted(names)
    assert list(y) == ["a", "a", "b"]
    assert (x[..., 0] == blobs(3)[[2, 0, 1]]).all()
    one = data.load_every(folder_of(tmp_path / "one", "only.png"))  # `load` refuses one alone
    assert (one[0].shape, one[1], one[2]) == ((1, 8, 8, 1), None, ["only.png"])


def test_a_file_gives_every_image_by_its_place(tmp_path):
    np.savez(tmp_path / "some.npz", images=blobs(3), labels=[3, 1, 2])
    x, y, names = data.load_every(tmp_path / "some.npz")
    assert (x[..., 0] == blobs(3)).all()
    assert list(y) == [3, 1, 2]
    assert names == ["images[0]", "images[1]", "images[2]"]
    np.save(tmp_path / "some.npy", blobs(2))
    assert data.load_every(tmp_path / "some.npy", size=(4, 4))[0].shape == (2, 4, 4, 1)


def test_what_comes_split_is_known(tmp_path):
    np.savez(tmp_path / "split.npz", x_train=blobs(3), x_test=blobs(3))
    np.savez(tmp_path / "whole.npz", x_train=blobs(3))
    assert data.comes_split(tmp_path / "split.npz")
    assert not data.comes_split(tmp_path / "whole.npz")
    assert data.comes_split(folder_of(tmp_path / "parts", "train/1.png", "test/1.png"))
    assert not data.comes_split(folder_of(tmp_path / "labels", "one/1.png", "two/1.png"))


@pytest.mark.parametrize("name", ["nowhere", "text.txt", "empty"])
def test_what_has_no_images_is_refused(tmp_path, name):
    (tmp_path / "text.txt").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidValueError, match="data"):
        data.load_every(tmp_path / name)
