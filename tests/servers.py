"""Embedded servers over small exports, and how the tests ask them."""

import concurrent.futures
import contextlib
import functools
import json
import shutil
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import urllib3
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from vae_tf import VAE, export_decoder
from vae_tf.serving.server import EmbeddedServer

Z = [[0.5, -1.0], [2.0, 0.0], [-0.5, 0.25]]
BODY = json.dumps({"instances": Z}).encode()
HEAD = "POST /v1/models/vae:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
SECONDS = 20  # until a test gives up


@functools.cache  # for all files that import the fixture
def _exports(folder):
    found = []
    for seed in (1, 2):
        model = VAE(latent_dim=2, hidden_units=(8,), seed=seed)
        model.build((None, 4, 4))
        path = export_decoder(model, folder / str(seed) / "m", version=seed)
        loaded = tf.saved_model.load(str(path))
        images = loaded.signatures["decode"](z=tf.constant(Z))["probabilities"].numpy()
        found.append((path, images))
    shutil.rmtree(found[0][0] / "assets.extra")  # a version without a warm-up loads sooner
    assert not np.allclose(found[0][1], found[1][1], atol=1e-3)
    return found


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Two exported models that differ, with what they make of `Z`: `(path, images)` each."""
    return _exports(tmp_path_factory.getbasetemp() / "exports")


@pytest.fixture
def models(exports, tmp_path):
    """A directory of versions that holds version 1."""
    put(exports[0][0], tmp_path / "models" / "1")
    return tmp_path / "models"


def put(source, target):
    """A version appears at once, as `export_decoder` has it."""
    target.parent.mkdir(exist_ok=True)
    aside = target.parent / f".aside-{target.name}"
    shutil.copytree(source, aside)
    aside.rename(target)


def serve(models, **options):
    return EmbeddedServer(models, rest_port=0, grpc_port=0, **options)


@pytest.fixture(scope="module")
def server(exports, tmp_path_factory):
    """One for all that leave it as it was."""
    models = tmp_path_factory.mktemp("models")
    put(exports[0][0], models / "1")
    with serve(models) as server:
        yield server


@pytest.fixture
def own(models):
    """A server that looks at its versions all the time."""
    with serve(models, poll_seconds=0.02) as server:
        yield server


def ask(server, path=":predict", body=BODY, method=None, **options):
    """`(status, JSON or text)`, by a connection of its own."""
    path = path if path.startswith("/") else f"/v1/models/vae{path}"
    with urllib3.PoolManager() as pool:
        method = method or ("POST" if body else "GET")
        url = f"http://{server.rest_address}{path}"
        answer = pool.request(
            method, url, body=body, timeout=SECONDS, retries=False, redirect=False, **options
        )
    is_json = answer.headers.get("Content-Type") == "application/json"
    return answer.status, json.loads(answer.data) if is_json else answer.data.decode()


def images_of(server, path=":predict"):
    status, answer = ask(server, path)
    assert status == 200, answer
    return np.array(answer["predictions"])


def statuses(server):
    """Versions by number: state and message."""
    entries = ask(server, "", None)[1]["model_version_status"]
    return {int(e["version"]): (e["state"], e["status"]["error_message"]) for e in entries}


def state(server, number):
    return statuses(server).get(number, ("",))[0]


def wait_for(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@contextlib.contextmanager
def stub_of(server, service=prediction_service_pb2_grpc.PredictionServiceStub):
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield service(channel)


def message(z=Z, shape=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "vae"
    request.inputs["z"].CopyFrom(tf.make_tensor_proto(np.array(z, "float32"), shape=shape))
    return request


def code_of(server, request):
    """gRPC's code for a request, "OK" among them."""
    with stub_of(server) as stub:
        try:
            stub.Predict(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


class Gate:
    """Holds the requests to one version of a server until it is opened."""

    def __init__(self, server, number=1):
        model = server.core.versions.known[number].model
        self.arrived, self.opened, predict = (
            threading.Semaphore(0),
            threading.Event(),
            model.predict,
        )

        def held(*arguments):
            self.arrived.release()
            assert self.opened.wait(SECONDS)
            return predict(*arguments)

        model.predict = held

    def wait(self, requests=1):
        for _ in range(requests):
            assert self.arrived.acquire(timeout=SECONDS)


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        yield threads


def samples(server):
    text = ask(server, "/monitoring/prometheus/metrics", None)[1]
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name.removeprefix("vae_tf_serving_"), *sample.labels.values())
            found[key] = sample.value
    return found, text


def connect(server):
    host, port = server.rest_address.split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def read_answers(connection, count=1):
    """The bodies of so many answers, which all have a Content-Length."""
    stream, bodies = connection.makefile("rb"), []
    for _ in range(count):
        status = int(stream.readline().split()[1])
        headers = dict(line.split(b": ") for line in iter(lambda: stream.readline().strip(), b""))
        length = int({k.lower(): v for k, v in headers.items()}[b"content-length"])
        bodies.append((status, json.loads(stream.read(length))))
    return bodies
