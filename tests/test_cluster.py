"""Clusters of codes: known groups are found, agreement with labels, the nearest images, the command."""

import sys

import numpy as np
import pytest
from application_helpers import run_command
from helpers import blobs
from small_models import Autoencoder, save_run

import vae_tf
from vae_tf.applications.clustering import cluster, cluster_codes, projected

CENTRES = np.array([[0.0, 0, 0], [5, 0, 0], [0, 5, 5]])
GROUP = np.arange(90) % 3
CODES = CENTRES[GROUP] + np.random.default_rng(0).normal(0, 0.3, (90, 3))


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_known_groups_are_found(method):
    found = cluster_codes(CODES, 3, method)
    agreement = found.agreement(np.array(["a", "b", "c"])[GROUP])
    assert agreement == pytest.approx({"adjusted_rand": 1, "normalized_mutual_information": 1})
    means = [CODES[found.numbers == number].mean(0) for number in range(3)]
    np.testing.assert_allclose(found.centres, means, atol=1e-5)
    assert found.silhouette() > 0.8
    by_chance = found.agreement(np.random.default_rng(0).permutation(GROUP))
    assert abs(by_chance["adjusted_rand"]) < 0.05
    np.testing.assert_array_equal(found.numbers, cluster_codes(CODES, 3, method).numbers)


def test_silhouette_is_its_formula():
    """(b − a)/max(a, b), of the mean distances to the own cluster and to the next (Rousseeuw 1987)."""
    found = cluster_codes(CODES[:30], 3)
    distances = np.linalg.norm(found.codes[:, None] - found.codes[None], axis=-1)
    values = []
    for i, own in enumerate(found.numbers):
        means = [distances[i, found.numbers == other].mean() for other in range(3)]
        a = distances[i, found.numbers == own].sum() / ((found.numbers == own).sum() - 1)
        b = min(mean for other, mean in enumerate(means) if other != own)
        values.append((b - a) / max(a, b))
    assert found.silhouette() == pytest.approx(np.mean(values))


def test_the_nearest_images_are_in_order_of_distance():
    found = cluster_codes(CODES, 3)
    distances = np.linalg.norm(found.centres[:, None] - found.codes[None], axis=-1)
    np.testing.assert_array_equal(found.nearest(5), np.argsort(distances, axis=1)[:, :5])


def test_codes_are_those_of_the_model_and_maps_are_flattened():
    x = blobs(20, (8, 8, 1))
    vqvae = vae_tf.VQVAE(4, 3, filters=(8,), seed=0)
    vqvae.build((None, 8, 8, 1))
    found = cluster(vqvae, x, 2, method="mixture", covariance="diag")
    np.testing.assert_allclose(found.codes, vqvae.code(x).reshape(20, -1), atol=1e-5)
    assert found.centres.shape == (2, 4 * 4 * 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda found: found.agreement(None), "'labels': expected a label of each image"),
        (
            lambda found: found.agreement(GROUP[:5]),
            r"one for each of 90 images. Received: shape \(5,\)",
        ),
        (lambda found: found.agreement(np.eye(3)[GROUP]), r"Received: shape \(90, 3\)"),
        (lambda found: cluster(model(), blobs(5, (8, 8)), 6), "no more than the 5 images"),
        (lambda found: cluster(model(), blobs(5, (8, 8)), 1), "at least 2"),
        (lambda found: cluster(model(), blobs(5, (8, 8)), None), "how many groups to find"),
        (lambda found: cluster(model(), blobs(5, (8, 8)), 2, "tree"), "'kmeans' or 'mixture'"),
        (lambda found: cluster("saved_models/mnist_z10", blobs(5, (28, 28)), 2), "--with-encoder"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(cluster_codes(CODES, 3))


def model():
    model = vae_tf.VAE(2, (8,), seed=0)
    model.build((None, 8, 8))
    return model


def test_the_plane_of_long_codes_and_of_codes_of_one_number(monkeypatch):
    points, names = projected(CODES)
    variances = np.linalg.eigvalsh(np.cov(CODES.T))[::-1]
    np.testing.assert_allclose(points.var(axis=0, ddof=1), variances[:2], rtol=1e-5)
    assert names[0] == f"first component ({variances[0] / variances.sum():.0%} of the variance)"
    points, _ = projected(CODES[:, :1])
    np.testing.assert_array_equal(points, np.column_stack([CODES[:, 0], np.arange(90)]))
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match=r'pip install "vae_tf\[umap\]"'):
        projected(CODES, "umap")


@pytest.mark.slow  # numba compiles it at its first call
def test_umap_keeps_groups_apart_and_the_seed_fixes_it():
    pytest.importorskip("umap")
    points, names = projected(CODES, "umap", seed=1)
    assert names == ("first of UMAP", "second of UMAP")
    assert cluster_codes(points, 3).agreement(GROUP)["adjusted_rand"] == pytest.approx(1)
    np.testing.assert_array_equal(projected(CODES, "umap", seed=1)[0], points)


def test_the_command_with_labels_and_without(tmp_path):
    model = Autoencoder(seed=0)
    model.build((None, 8, 8, 1))
    run = save_run(model, tmp_path / "run")
    options = {"dataset": "digits", "images": 60, "method": ("kmeans",)}
    found = run_command("cluster", run, tmp_path / "out", **options).metrics["cluster"]
    labels = vae_tf.load("digits").y_test[:60]
    assert found["kmeans"]["clusters"] == len(np.unique(labels))
    right = cluster_codes(model.code(vae_tf.load("digits").x_test[:60]), 10).agreement(labels)
    assert found["kmeans"]["adjusted_rand"] == pytest.approx(right["adjusted_rand"])
    np.save(tmp_path / "x.npy", blobs(40, (8, 8, 1)))
    options = {"data": str(tmp_path / "x.npy"), "method": ("kmeans",), "split": "train"}
    with pytest.raises(ValueError, match="'num_clusters': expected how many groups"):
        run_command("cluster", run, tmp_path / "none", **options)
    found = run_command("cluster", run, tmp_path / "none", num_clusters=3, **options)
    assert {*found.metrics["cluster"]["kmeans"]} == {"clusters", "silhouette"}
