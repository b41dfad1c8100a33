"""What applications work on: a model, a run, a SavedModel and a server of one model give the same."""

import numpy as np
import pytest
from helpers import blobs
from small_models import save_run

import vae_tf
from vae_tf.applications import source_of
from vae_tf.serving.server import EmbeddedServer


@pytest.fixture(scope="module")
def model():
    model = vae_tf.ConditionalVAE(2, (8,), num_classes=4, seed=0)
    model.build((None, 8, 8))
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    vae_tf.export_decoder(model, folder / "models", with_encoder=True)
    vae_tf.export_decoder(model, folder / "decoder")
    save_run(model, folder / "run")
    return folder


@pytest.fixture(scope="module", params=["model", "run", "saved model", "rest", "grpc"])
def source(request, model, folder):
    if request.param in ("rest", "grpc"):
        with EmbeddedServer(folder / "models", rest_port=0, grpc_port=0) as server:
            address = server.rest_address if request.param == "rest" else server.grpc_address
            scheme = "http" if request.param == "rest" else "grpc"
            yield source_of(f"{scheme}://{address}")
        return
    named = {"model": model, "run": folder / "run", "saved model": str(folder / "models")}
    yield source_of(named[request.param])


X, LABELS = blobs(5, (8, 8)), np.array([0, 1, 2, 3, 1])


def test_each_gives_what_the_model_gives(source, model):
    z_mean, z_log_var = model.encode(X, LABELS)
    np.testing.assert_allclose(source.encode(X, LABELS), z_mean, atol=1e-5)
    for found, right in zip(source.posterior(X, LABELS), (z_mean, z_log_var), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)
    images = model.decode_images(z_mean, LABELS)
    np.testing.assert_allclose(source.decode(z_mean, LABELS), images, atol=1e-5)
    np.testing.assert_allclose(source.reconstruct(X, LABELS), images, atol=1e-5)


def test_scores_are_those_of_the_seeds(source, model):
    score = source_of(model).score(X, seed=3, condition=LABELS)
    np.testing.assert_allclose(source.score(X, seed=3, condition=LABELS), score, rtol=1e-4)
    assert (source.score(X, seed=4, condition=LABELS) != score).all()


def test_rows_do_not_depend_on_the_batch_and_progress_is_told(model, monkeypatch):
    monkeypatch.setattr("vae_tf.applications.sources.ROWS", 2)
    source, said = source_of(model), []
    codes = source.encode(X, LABELS, progress=lambda *counts: said.append(counts))
    assert said == [(2, 5), (4, 5), (5, 5)]
    np.testing.assert_allclose(codes, model.encode(X, LABELS)[0], atol=1e-5)


def test_what_is_not_there_is_refused_with_what_to_do(folder, model):
    decoder = source_of(folder / "decoder")
    assert decoder.has("decode")
    assert not decoder.has("encode")
    with pytest.raises(TypeError, match=r"one that has 'encode', for 'cluster'.*--with-encoder"):
        decoder.needs("encode", "cluster")
    with pytest.raises(TypeError, match=r"a run directory or a vae_tf\.Model"):
        decoder.needs("model", "compress")
    plain = vae_tf.VAE(2, (8,), seed=0)
    plain.build((None, 8, 8))
    with pytest.raises(TypeError, match="has no condition"):
        source_of(plain).encode(X, LABELS)
    with pytest.raises(ValueError, match="shape"):
        source_of(folder / "models").encode(np.zeros((2, 9, 9), "uint8"), 1)
    with pytest.raises(TypeError, match=r"a vae_tf\.Model, a path, or a server's address"):
        source_of(3)
    with pytest.raises(ValueError, match="a SavedModel"):
        source_of(folder)
