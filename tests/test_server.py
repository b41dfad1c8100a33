"""What is the embedded server's own: versions that come and go, health, metrics, failures, many clients.

Answers are compared with the SavedModels loaded here. The protocol: tests/serving_contract.
"""

# ruff: noqa: F811  fixtures are imported by their names

import json
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import (  # noqa: F401
    BODY,
    HEAD,
    SECONDS,
    Gate,
    Z,
    ask,
    code_of,
    connect,
    exports,
    images_of,
    message,
    models,
    own,
    put,
    read_answers,
    samples,
    serve,
    server,
    state,
    statuses,
    stub_of,
    threads,
    wait_for,
)

from vae_tf.serving.server import Limits

# Versions.


def test_a_new_version_takes_over_and_no_request_fails(own, models, exports, threads):
    done = threading.Event()

    def stream():
        found = []
        while not done.is_set():
            found.append(images_of(own))
        return found

    streams = [threads.submit(stream) for _ in range(2)]
    try:
        put(exports[1][0], models / "2")
        wait_for(lambda: state(own, 1) == "END")
    finally:
        done.set()
    for future in streams:
        which = [
            [np.allclose(images, e[1], atol=1e-6) for e in exports] for images in future.result()
        ]
        assert all(sum(row) == 1 for row in which)
        assert which == sorted(which, reverse=True)  # the old one, and then the new one
        assert which[0] == [True, False]
    np.testing.assert_allclose(images_of(own), exports[1][1], atol=1e-6)
    assert ask(own, "/v1/models/vae/versions/1:predict")[0] == 404


def test_a_request_ends_with_the_version_it_began_with(own, models, exports, threads):
    gate = Gate(own)
    held = threads.submit(images_of, own)
    gate.wait()
    put(exports[1][0], models / "2")
    wait_for(lambda: state(own, 1) == "UNLOADING")
    np.testing.assert_allclose(images_of(own), exports[1][1], atol=1e-6)
    gate.opened.set()
    np.testing.assert_allclose(held.result(), exports[0][1], atol=1e-6)
    wait_for(lambda: state(own, 1) == "END")


@pytest.mark.parametrize("part", ["saved_model.pb", "variables"])
def test_a_broken_version_is_not_served_until_it_is_mended(own, models, exports, tmp_path, part):
    """Damaged, or not yet copied as a whole."""
    source = exports[1][0]
    shutil.copytree(source, tmp_path / "broken")
    if part == "variables":
        shutil.rmtree(tmp_path / "broken" / part)
    else:
        (tmp_path / "broken" / part).write_bytes(b"\xff" * 100)
    put(tmp_path / "broken", models / "2")
    wait_for(lambda: state(own, 2) == "END")
    assert statuses(own)[1] == ("AVAILABLE", "")
    message = statuses(own)[2][1]
    assert message
    assert "/" not in message
    np.testing.assert_allclose(images_of(own), exports[0][1], atol=1e-6)
    copy = shutil.copytree if part == "variables" else shutil.copyfile
    copy(source / part, models / "2" / part)
    wait_for(lambda: statuses(own)[2] == ("AVAILABLE", ""))
    np.testing.assert_allclose(images_of(own), exports[1][1], atol=1e-6)


def test_back_to_the_version_before(own, models, exports):
    put(exports[1][0], models / "2")
    wait_for(lambda: state(own, 1) == "END")
    shutil.rmtree(models / "2")
    wait_for(lambda: statuses(own) == {1: ("AVAILABLE", ""), 2: ("END", "")})
    np.testing.assert_allclose(images_of(own), exports[0][1], atol=1e-6)
    shutil.rmtree(models / "1")  # the last one is kept in memory
    time.sleep(0.2)
    assert state(own, 1) == "AVAILABLE"


def test_labelled_versions_are_kept(models, exports):
    with serve(models, labels={"stable": 1}, poll_seconds=0.02) as server:
        put(exports[1][0], models / "2")
        wait_for(lambda: state(server, 2) == "AVAILABLE")
        (models / "3").mkdir()
        wait_for(lambda: state(server, 3) == "END")
        time.sleep(0.2)  # a broken version takes nobody's place
        np.testing.assert_allclose(images_of(server), exports[1][1], atol=1e-6)
        put(exports[1][0], models / "4")
        wait_for(lambda: state(server, 2) == "END")
        assert statuses(server)[1] == ("AVAILABLE", "")
        np.testing.assert_allclose(images_of(server), exports[1][1], atol=1e-6)
        stable = images_of(server, "/v1/models/vae/labels/stable:predict")
        np.testing.assert_allclose(stable, exports[0][1], atol=1e-6)


# Health, metrics, the page.


def test_health(own):
    assert ask(own, "/healthz", None) == (200, "ok\n")
    assert ask(own, "/readyz", None)[0] == 200
    with stub_of(own, health_pb2_grpc.HealthStub) as stub:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    own.core.stopped.set()
    assert ask(own, "/readyz", None)[0] == 503
    assert ask(own, "/healthz", None)[0] == 200


def test_metrics_rise_by_what_was_asked(server):
    before, _ = samples(server)
    ask(server), ask(server)
    ask(server, body=b'{"signature_name": "mallory", "instances": [1]}')
    ask(server, "/v1/models/mallory:predict")
    ask(server, "/mallory", None)
    code_of(server, message())
    code_of(server, message([[1.0]]))
    after, text = samples(server)
    rise = {key: value - before.get(key, 0) for key, value in after.items()}
    requests = {key[1:]: value for key, value in rise.items() if key[0] == "requests_total"}
    assert requests == {
        ("REST", "OK"): 2,
        ("REST", "INVALID_ARGUMENT"): 1,
        ("REST", "NOT_FOUND"): 1,
        ("gRPC", "OK"): 1,
        ("gRPC", "INVALID_ARGUMENT"): 1,
    }
    assert rise["request_seconds_count", "REST"] == 4
    assert rise["request_seconds_count", "gRPC"] == 2
    wait_for(lambda: samples(server)[0]["requests_admitted",] == 0)
    assert after["model_version",] == 1
    assert "mallory" not in text


def test_a_failure_of_the_servers_own_says_nothing_of_it(server, monkeypatch):
    def fail(*_):
        raise RuntimeError("in /home/somebody/secret.py")

    monkeypatch.setattr(server.core.versions.known[1].model, "predict", fail)
    status, answer = ask(server)
    assert (status, list(answer)) == (500, ["error"])
    with stub_of(server) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(message(), timeout=SECONDS)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    for text in (answer["error"], caught.value.details()):
        assert "secret" not in text


def test_several_requests_in_one_packet(server, exports):
    one = json.dumps({"instances": Z[:1]}).encode()
    parts = [HEAD.format(len(body)).encode() + body for body in (BODY, b"no", one)]
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(b"".join(parts))
            (first, a), (second, b), (third, c) = read_answers(connection, 3)
            assert (first, second, third, list(b)) == (200, 400, 200, ["error"])
            np.testing.assert_allclose(a["predictions"], exports[0][1], atol=1e-6)
            np.testing.assert_allclose(c["predictions"], exports[0][1][:1], atol=1e-6)


def test_a_body_that_does_not_come(models):
    limits = Limits(requests=1, read_seconds=0.5)
    with serve(models, limits=limits) as server, connect(server) as connection:
        connection.sendall(HEAD.format(100).encode() + b'{"insta')
        wait_for(lambda: samples(server)[0]["requests_admitted",] == 1)
        assert ask(server)[0] == 429
        [(status, answer)] = read_answers(connection)
        assert (status, list(answer)) == (504, ["error"])
        assert ask(server)[0] == 200


def test_a_client_that_goes_away(models, caplog):
    with serve(models, limits=Limits(requests=1)) as server:
        with connect(server) as connection:
            connection.sendall(HEAD.format(100).encode() + b'{"insta')
            wait_for(lambda: samples(server)[0]["requests_admitted",] == 1)
        wait_for(lambda: ask(server)[0] == 200)
        assert samples(server)[0]["requests_total", "REST", "CANCELLED"] == 1
        gate = Gate(server)
        with connect(server) as connection:
            connection.sendall(HEAD.format(len(BODY)).encode() + BODY)
            gate.wait()
        gate.opened.set()
        wait_for(lambda: ask(server)[0] == 200)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_eight_clients_at_once(server, exports, threads):
    """Each asks for its own rows, half of them by gRPC."""
    signature = tf.saved_model.load(str(exports[0][0])).signatures["decode"]

    def client(number):
        draws = np.random.default_rng(number).normal(size=(50, 1 + number, 2)).astype("float32")
        found = []
        with stub_of(server) as stub, urllib3.PoolManager() as pool:
            for z in draws:
                if number % 2:
                    answer = stub.Predict(message(z), timeout=SECONDS).outputs["probabilities"]
                    found.append(tf.make_ndarray(answer))
                else:
                    url = f"http://{server.rest_address}/v1/models/vae:predict"
                    answer = pool.request("POST", url, json={"instances": z.tolist()})
                    found.append(answer.json()["predictions"])
        return draws, np.array(found)

    for draws, found in threads.map(client, range(8)):
        expected = [signature(z=tf.constant(z))["probabilities"] for z in draws]
        np.testing.assert_allclose(found, expected, atol=1e-6)
