"""What is too much for the embedded server: each thing that a client can send, or leave unread."""

# ruff: noqa: F811  fixtures are imported by their names

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import re
import resource
import socket
import time
import tracemalloc

import grpc
import numpy as np
import pytest
import tensorflow as tf
from raw_clients import PREDICTION, call, connect_to, is_closed
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
    message,
    models,
    read_answers,
    serve,
    server,
    threads,
    wait_for,
)
from tensorflow_serving.apis import model_pb2

from vae_tf.serving import codec, core, wire
from vae_tf.serving.limits import Budget
from vae_tf.serving.server import Limits
from vae_tf.serving.status import ServingError


def test_a_request_that_is_too_long(models):
    long = json.dumps({"instances": Z * 100}).encode()
    with serve(models, limits=Limits(request_bytes=2000)) as server:
        for body in (long, iter([long[:1500], long[1500:]])):
            status, answer = ask(server, body=body, method="POST")
            assert (status, list(answer)) == (413, ["error"])
            assert "2000" in answer["error"]
        assert code_of(server, message(Z * 100)) == "RESOURCE_EXHAUSTED"
        assert ask(server)[0] == 200
        assert code_of(server, message()) == "OK"


def test_more_rows_than_the_limit(models):
    with serve(models, limits=Limits(batch=3)) as server:
        assert ask(server)[0] == 200
        assert code_of(server, message()) == "OK"
        four = json.dumps({"instances": [*Z, Z[0]]}).encode()
        status, answer = ask(server, body=four)
        assert status == 400
        assert "3" in answer["error"]
        assert code_of(server, message([*Z, Z[0]])) == "INVALID_ARGUMENT"


def test_a_shape_is_no_reason_to_take_memory(server):
    """2^26 rows of which one is sent: half a gibibyte, were they made."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shapes = [(2**26, 2), (2**62, 2**62), (2, 2**40), (1,) * 300, (-1, 2), (2, -1)]
    for name, dtype, shape in [("x", 1, (2**28,)), *[("z", d, s) for d in (1, 2) for s in shapes]]:
        request = message()
        request.inputs.clear()
        tensor = request.inputs[name]
        tensor.dtype = dtype
        tensor.float_val.append(1.0)
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        assert code_of(server, request) == "INVALID_ARGUMENT"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
    assert code_of(server, message()) == "OK"


@pytest.mark.parametrize(
    "column",
    [["a" * 100_000, *["b"] * 7000], [[]] * 100_000, [{}] * 100_000, [[0.5, 0.5]] * 5000],
    ids=["strings", "lists", "objects", "rows"],
)
def test_json_is_checked_before_it_becomes_arrays(server, column):
    """Strings would be as wide as the longest, 2.8 GB; an empty list takes 30 times its text."""
    body = json.dumps({"instances": [column]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(ServingError, match=r"rows|shape"):
            codec.read_json(body, server.core.versions.known[1].model)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"\x12\x00" * 1000,
        b"\x1a\x00" * 1000,
        b"\x12\xd3\x0f\x0a\x01z\x12\xcd\x0f" + b"\x12\x00" * 998,
        b"\x12\x07\x0a\x01z\x12\x02\x7a\x00",
        b"\x12\xff",
        b"\xff" * 20,
        b"\x13",
    ],
    ids=["inputs", "outputs", "shapes", "a variant", "cut off", "a long number", "a group"],
)
def test_a_message_is_looked_at_before_it_is_parsed(server, content):
    with (
        grpc.insecure_channel(server.grpc_address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(PREDICTION + "Predict")(content, timeout=SECONDS)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert re.search("fields|no message|numbers or strings", caught.value.details())


def test_what_the_fields_of_a_message_are():
    """Against protobuf's own parser."""
    request = message(np.ones((40, 2)))
    request.model_spec.version.value = 300
    request.output_filter.extend(["a", "b"])
    content = request.SerializeToString()
    found = wire.fields(content)
    assert sorted(number for number, _ in found) == [1, 2, 3, 3]
    [spec] = [bytes(part) for number, part in found if number == 1]
    assert model_pb2.ModelSpec.FromString(spec) == request.model_spec
    wire.check_predict(content, 3)
    with pytest.raises(ServingError, match="more than 3 fields"):
        wire.fields(content, 3)


def test_an_answer_that_is_too_long(models):
    """Said before the model runs: 16 pixels a row."""
    with serve(models, limits=Limits(answer_bytes=160)) as server:
        status, answer = ask(server)
        assert status == 400
        assert "768 bytes; this server's limit is 160: ask for 0 rows" in answer["error"]
        assert code_of(server, message()) == "INVALID_ARGUMENT"
        assert code_of(server, message(Z[:2])) == "OK"  # 4 bytes a number, for REST's 16


def test_no_rows(server):
    status, answer = ask(server, body=b'{"signature_name": "generate", "inputs": []}')
    assert (status, answer) == (200, {"outputs": {"images": [], "z": []}})


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000,
        b'{"signature_name": "\\ud800", "instances": [[1, 2]]}',
        b'{"signature_name": "\xff", "instances": [[1, 2]]}',
        b'{"instances": [[' + b"9" * 5000 + b", 1]]}",
    ],
    ids=["deep", "not closed", "half a character", "no UTF-8", "a long number"],
)
def test_odd_bodies(server, body):
    status, answer = ask(server, body=body)
    assert (status, list(answer)) == (400, ["error"])


def test_more_requests_than_the_limit(models, threads):
    with serve(models, limits=Limits(requests=2)) as server:
        gate = Gate(server)
        held = [threads.submit(ask, server) for _ in range(2)]
        gate.wait(2)
        start = time.monotonic()
        status, answer = ask(server)
        assert (status, list(answer)) == (429, ["error"])
        assert code_of(server, message()) == "RESOURCE_EXHAUSTED"
        assert time.monotonic() - start < SECONDS / 4  # at once, and not when there is a place
        gate.opened.set()
        assert [future.result()[0] for future in held] == [200, 200]
        assert ask(server)[0] == 200
        assert code_of(server, message()) == "OK"


def test_all_bodies_together(models):
    """Two halves that each would fit alone."""
    limits = Limits(request_bytes=3000, answer_bytes=1000)
    with serve(models, limits=dataclasses.replace(limits, held_bytes=0)) as server:
        with connect(server) as first, connect(server) as second:
            first.sendall(HEAD.format(2900).encode() + b" " * 2500)
            wait_for(lambda: server.core.held.left < 2000)
            second.sendall(HEAD.format(2900).encode() + b" " * 2500)
            [(status, answer)] = read_answers(second)
            assert (status, list(answer)) == (429, ["error"])
            assert "2500 bytes" in answer["error"]
            assert ask(server)[0] == 200
        wait_for(lambda: server.core.held.left == 4000)


def test_a_budget_is_lent_in_turns():
    """Two of 600 of 1000 take turns."""
    rows, order = Budget(1000), []

    def run(number):
        with rows.lent(600):
            order.append(("begins", number))
            time.sleep(0.05)
            order.append(("ends", number))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        [*threads.map(run, range(4))]
    assert [what for what, _ in order] == ["begins", "ends"] * 4
    assert rows.left == 1000


# What a client sends and never ends, or never reads.


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000,
        b"GET /" + b"a" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 3000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 70_000,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000,
    ],
    ids=["a long one", "a long address", "many", "after the body", "many requests"],
)
def test_headers_without_end(server, content):
    with connect(server) as connection:
        connection.sendall(content)
        wait_for(lambda: is_closed(connection))
    assert ask(server)[0] == 200


def test_long_headers_are_refused_in_words(server):
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000)
        [(status, answer)] = read_answers(connection)
    assert (status, answer) == (431, {"error": "The headers are longer than 65536 bytes."})


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: loc"])
def test_headers_that_do_not_come(models, sent):
    with serve(models, limits=Limits(header_seconds=0.2)) as server:
        for address in (server.rest_address, server.grpc_address):
            with connect_to(address) as connection:
                connection.sendall(sent)
                wait_for(lambda connection=connection: is_closed(connection))
        assert ask(server)[0] == 200


def test_a_message_that_does_not_come(models):
    """Nor may it keep those from being answered whose messages come."""
    with serve(models, limits=Limits(requests=40, read_seconds=0.5)) as server:
        held = [call(server.grpc_address) for _ in range(39)]
        wait_for(lambda: server.core.admitted == 39)
        wait_for(lambda: server.core.admitted < 30)
        assert code_of(server, message()) == "OK"
        for connection in held:
            connection.close()
        wait_for(lambda: server.core.admitted == 0)


def test_answers_that_are_not_read(models):
    """They hold their places, and then they are given up."""
    limits = Limits(batch=200_000, write_seconds=2.0, requests=2)
    body = json.dumps({"signature_name": "generate", "inputs": [1] * 200_000}).encode()
    request = message()
    request.model_spec.signature_name = "generate"
    request.inputs.clear()
    seeds = tf.make_tensor_proto(np.zeros(1, "int64"))  # one stands for all, in few bytes
    seeds.tensor_shape.dim[0].size = 200_000
    request.inputs["seed"].CopyFrom(seeds)
    with serve(models, limits=limits) as server, connect_to(server.rest_address, False) as rest:
        rest.sendall(HEAD.format(len(body)).encode() + body)
        with call(server.grpc_address, message=request.SerializeToString(), window=0):
            wait_for(lambda: server.core.admitted == 2)
            wait_for(lambda: not server.core.threads._work_queue.qsize())
            time.sleep(0.5)
            assert ask(server)[0] == 429
            wait_for(lambda: server.core.admitted == 0)
        assert is_closed(rest)
        assert ask(server)[0] == 200


def test_more_connections_than_the_limit(models):
    with serve(models, limits=Limits(connections=2)) as server:
        with connect(server) as one, connect(server), connect(server) as third:
            [(status, answer)] = read_answers(third)
            assert (status, list(answer)) == (503, ["error"])
            one.sendall(HEAD.format(len(BODY)).encode() + BODY)
            assert read_answers(one)[0][0] == 200
        wait_for(lambda: ask(server)[0] == 200)


def test_out_of_sockets(models, caplog):
    """It waits, and says so once: asyncio would write 26,000 lines a second."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serve(models, poll_seconds=60) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(20)]
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            host, port = server.rest_address.split(":")
            for client in clients:
                client.connect((host, int(port)))
            time.sleep(2.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert sum("out of sockets" in record.message for record in caplog.records) == 1
        assert len(caplog.records) < 10
        stack.pop_all().close()
        wait_for(lambda: ask(server)[0] == 200)


def test_a_model_runs_on_parts_of_a_large_request(server, exports, monkeypatch):
    """Three rows of 18 numbers, of which 40 run at once: two rows, and then one."""
    monkeypatch.setattr(core, "NUMBERS", 40)
    model, sizes = server.core.versions.known[1].model, []
    predict = model.predict
    with monkeypatch.context() as patched:
        patched.setattr(
            model, "predict", lambda s, a, o=(): sizes.append(len(a["z"])) or predict(s, a, o)
        )
        status, answer = ask(server)
    assert (status, sizes) == (200, [2, 1])
    np.testing.assert_allclose(answer["predictions"], exports[0][1], atol=1e-6)
