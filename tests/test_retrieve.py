"""The index of codes, mean average precision, and `vae-tf retrieve`."""

import importlib.util
import json

import numpy as np
import pytest
from helpers import blobs
from sklearn.metrics import average_precision_score

import vae_tf
from vae_tf import export
from vae_tf.applications import retrieve
from vae_tf.applications.index import Index
from vae_tf.cli import main
from vae_tf.errors import InvalidValueError

CODES = np.random.default_rng(0).standard_normal((500, 4)).astype("float32")
QUERIES = np.random.default_rng(1).standard_normal((30, 4)).astype("float32")
KINDS = pytest.mark.parametrize("approximate", [False, True])


@KINDS
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_are_those_of_all_distances(approximate, metric):
    rows, distances = Index(CODES, approximate=approximate, metric=metric).query(QUERIES, 5)
    codes, queries = CODES, QUERIES
    if metric == "cosine":
        codes, queries = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (codes, queries))
    exact = np.linalg.norm(queries[:, None] - codes, axis=2)
    nearest = np.argsort(exact, axis=1)[:, :5]
    found = retrieve.recall(rows, nearest).mean
    assert found > 0.95 if approximate else found == 1
    assert distances == pytest.approx(np.take_along_axis(exact, rows, axis=1), abs=1e-3)


def test_maps_of_codes_are_flattened():
    maps = CODES.reshape(500, 2, 2)
    assert (Index(maps).query(maps[:3], 1)[0][:, 0] == [0, 1, 2]).all()


@KINDS
def test_an_index_is_the_same_after_a_file(approximate, tmp_path):
    index = Index(CODES, np.arange(500) % 7, approximate)
    index.save(tmp_path / "index")  # of any name
    loaded = Index.load(tmp_path / "index")
    assert (loaded.labels == index.labels).all()
    assert loaded.approximate is approximate
    for one, other in zip(index.query(QUERIES, 9), loaded.query(QUERIES, 9), strict=True):
        assert (one == other).all()
    again = Index(CODES, None, approximate).query(QUERIES, 9)  # the same codes give the same graph
    assert (again[0] == loaded.query(QUERIES, 9)[0]).all()


@KINDS
@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_index_is_named(approximate, damage, tmp_path):
    path = tmp_path / "index"
    Index(CODES, None, approximate).save(path)
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-100], "changed": content, "other": b"no index"}[damage])
    with pytest.raises(InvalidValueError, match="none or is damaged"):
        Index.load(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Index(CODES, labels=np.zeros(3)), "a label for each of 500 codes"),
        (lambda: Index(CODES[:, 0]), r"numbers of shape \(N, ...\)"),
        (lambda: Index(CODES * np.nan), "NaN or infinity"),
        (lambda: Index(CODES).query(QUERIES, 501), "at most the 500 codes of the index"),
        (lambda: Index(CODES).query(QUERIES[:, :3], 1), "codes of 4 numbers"),
        (lambda: Index.load("nowhere"), "a file that Index.save wrote"),
    ],
)
def test_what_an_index_cannot_take_is_refused(make, words):
    with pytest.raises(InvalidValueError, match=words):
        make()


def test_a_missing_faiss_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidValueError, match=r'pip install "vae_tf\[retrieve\]"'):
        Index(CODES, approximate=True)


# Mean average precision.


def test_average_precision_by_hand():
    labels = np.array(["a", "a", "b", "a", "b"])
    rows = [[0, 2, 1], [2, 3, 1], [2, 3, 1]]  # right: 1 0 1 | 0 1 1 | 1 0 0
    found = retrieve.average_precisions(rows, labels, ["a", "a", "b"])
    expected = [(1 + 2 / 3) / 3, (1 / 2 + 2 / 3) / 3, 1 / 2]  # 3, 3 and 2 relevant ones, K = 3
    assert found == pytest.approx(expected)
    assert retrieve.mean_average_precision(rows, labels, ["a", "a", "b"]).mean == pytest.approx(
        np.mean(expected)
    )


def test_average_precision_of_the_whole_index_is_scikit_learns():
    labels, own = np.arange(500) % 3, np.arange(30) % 3
    rows, distances = Index(CODES).query(QUERIES, 500)
    for found, row, distance, label in zip(
        retrieve.average_precisions(rows, labels, own), rows, distances, own, strict=True
    ):
        assert found == pytest.approx(average_precision_score(labels[row] == label, -distance))


def test_queries_without_a_relevant_image_are_left_out():
    rows, labels = [[0, 1], [1, 0]], np.array([5, 6])
    assert np.isnan(retrieve.average_precisions(rows, labels, [5, 9])).tolist() == [False, True]
    assert retrieve.mean_average_precision(rows, labels, [5, 9]).mean == 1
    with pytest.raises(InvalidValueError, match="none of them is"):
        retrieve.average_precisions(rows, labels, [9, 9])


@pytest.mark.parametrize(
    ("labels", "own", "words"),
    [
        (None, [1], "'labels': expected the images' labels"),
        ([1, 2], None, "'query_labels': expected the images' labels"),
        ([1, 2], [1], "a label for each image of the index"),
        ([1, 2, 3, 4], [1, 2], "one for each of 1 queries"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, own, words):
    with pytest.raises(InvalidValueError, match=words):
        retrieve.average_precisions([[3, 0]], labels, own)


# The command.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An exported model, and bars at eight heights as images."""
    folder = tmp_path_factory.mktemp("retrieve")
    model = vae_tf.VAE(latent_dim=3, hidden_units=(8,), seed=0)
    model.build((None, 8, 8, 1))
    export.export_decoder(model, folder / "model", with_encoder=True)
    export.export_decoder(model, folder / "decoder")
    x, more = blobs(60), blobs(20, seed=1)
    parts = {"x_train": x, "y_train": x.argmax(axis=1)[:, 0], "x_test": more}
    np.savez(folder / "data.npz", **parts, y_test=more.argmax(axis=1)[:, 0])
    np.savez(folder / "no_labels.npz", x_train=x, x_test=more)
    np.savez(folder / "fewer.npz", x_train=x[:30], x_test=more)
    return folder


def command(*words):
    return main(["retrieve", *map(str, words)])


def test_codes_and_pixels_side_by_side(files, tmp_path):
    words = (files / "model", "--data", files / "data.npz", "--k", 5, "--index", tmp_path / "index")
    assert command(*words, "--approximate", "--out", tmp_path / "first") == 0
    assert command(*words, "--approximate", "--out", tmp_path / "again") == 0  # by the kept index
    first, again = (
        json.loads((tmp_path / name / "metrics.json").read_text())["methods"]
        for name in ("first", "again")
    )
    assert first["code"]["map"] == again["code"]["map"]
    assert first["code, approximate"]["recall"] == 1
    assert first["raw pixels"]["map"] == 1  # each bar is nearest to those at its own height
    assert len([*(tmp_path / "first").glob("*.png")]) == 3


def test_without_labels_there_are_pictures_alone(files, tmp_path):
    words = (
        files / "model",
        "--data",
        files / "no_labels.npz",
        "--k",
        5,
        "--out",
        tmp_path / "out",
    )
    assert command(*words) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "map" not in found["methods"]["code"]
    assert "the images have no labels" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model", "--k", "61"), "at most the 60 images that are searched"),
        (("decoder", "--k", "5"), "--with-encoder"),
        (("model", "--k", "5", "--data", "fewer.npz", "--index", "kept"), "of 60"),
        (("model", "--k", "5", "--index", "kept", "--metric", "cosine"), "an exact one, euclidean"),
        (("model", "--k", "5", "--index", "others"), "whose codes are others"),
    ],
)
def test_what_cannot_be_searched_is_refused(files, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(files)
    Index(CODES[:60, :3]).save("kept")
    Index(CODES[:60, :3] + 9).save("others")
    data = () if "--data" in words else ("--data", "data.npz")
    assert command(*words, *data, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
