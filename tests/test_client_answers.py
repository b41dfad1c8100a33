"""`vae_tf.serving.Client` against servers that answer what they should not."""

import gzip
import json
import struct
import time
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from fake_servers import (
    OK,
    FakeGrpc,
    FakeHTTP,
    fails,
    fake,
    listening,
    plain,
    response_of,
    taking,
)
from tensorflow.core.framework import tensor_pb2

from vae_tf import memory
from vae_tf.random import row_seeds
from vae_tf.serving import Client, ServingError, answers, client

NAN = float("nan")
IMAGES = np.full((2, 3, 4), 0.5, "float32")
CALLS = {
    "decode": lambda c: c.decode([[1.0], [2.0]]),
    "generate": lambda c: c.generate(2, seed=0),
    "generate_png": lambda c: c.generate_png(2, seed=0),
    "encode": lambda c: c.encode(IMAGES),
    "reconstruct": lambda c: c.reconstruct(IMAGES),
    "score": lambda c: c.score(IMAGES, seed=0),
    "predict": lambda c: c.predict("any", x=[[1.0], [2.0]]),
}
GOOD, ROWS = "[[[0.5]], [[0.5]]]", "2 rows of"


@pytest.fixture(params=["http", "grpc"])
def kind(request):
    return request.param


def refuses(server, call, words, **options):
    """The client does not take the answer, says whose it is, and asks once."""
    with server, Client(server.address, **options) as c:
        fails("UNKNOWN", lambda: call(c), words)
        with pytest.raises(ServingError, match=server.address.rpartition("/")[2]):
            call(c)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("signature", "outputs", "words"),
    [
        ("decode", "[[0.5]]", f"{ROWS} its output. Received: 1 rows"),
        ("decode", "[[0.5], [0.5], [0.5]]", f"{ROWS} .*3 rows"),
        *[("decode", wrong, ROWS) for wrong in ("null", '"ab"', "3", "true", "[]", '{"x": null}')],
        ("decode", "{}", "the outputs probabilities. Received: none"),
        ("decode", "[[null], [0.5]]", "numbers in .*NoneType"),
        ("decode", '[["0.5"], ["0.5"]]', "numbers in .*str"),
        ("decode", "[[true], [0.5]]", "numbers in .*bool"),
        ("decode", "[[0.5], [0.5, 0.5]]", "lists of one length"),
        ("decode", "[[NaN], [0.5]]", "finite.* 1 of 2 numbers NaN"),
        *[("decode", f"[[{x}], [0.5]]", "finite") for x in ("Infinity", "1e999", "-1e39")],
        ("decode", f"[[1{'0' * 400}], [0.5]]", "too large"),
        ("decode", f"[[1{'0' * 5000}], [0.5]]", "JSON"),
        ("decode", "[0.5, 0.5]", r"of shape \(rows, ...\). Received: shape \(2,\)"),
        ("decode", "[[], []]", r"shape \(2, 0\)"),
        ("decode", f"[{'[' * 100}0.5{']' * 100}, 1]", "."),
        ("decode", "[" * 100_000, "recursion"),
        ("decode", '[{"b64": "AA=="}, {"b64": "AA=="}]', r"shape \(2,\)"),
        ("decode", '[[{"b64": "AA=="}], [{"b64": "AA=="}]]', "numbers in .*dict"),
        ("generate", GOOD, "the outputs images, z. Received: one without a name"),
        ("generate", f'{{"images": {GOOD}}}', "without z"),
        ("generate", f'{{"images": {GOOD}, "z": [[0.1]]}}', f"{ROWS} 'z'"),
        ("generate", f'{{"images": {GOOD}, "z": [[NaN], [1]]}}', "'z' to be finite"),
        ("generate_png", "[1.0, 2.0]", "files.*float32"),
        ("generate_png", '["ab", "cd"]', "str"),
        ("generate_png", '[{"b64": "?"}, {"b64": "AA=="}]', "base64|characters"),
        ("generate_png", '[{"b64": 3}, {"b64": "AA=="}]', "."),
        ("generate_png", '[{"b65": "AA=="}, {"b65": "AA=="}]', "'b64'"),
        ("encode", f'{{"z_mean": {GOOD}}}', "without z_log_var"),
        ("encode", f'{{"z_mean": {GOOD}, "z_log_var": [[1], [1]]}}', "'z_log_var' .*1, 1"),
        ("reconstruct", GOOD, r"\(rows, 3, 4\). Received: shape \(2, 1, 1\)"),
        ("score", "[[1.0], [2.0]]", r"\(rows\). Received: shape \(2, 1\)"),
        ("predict", "[[0.5]]", ROWS),
        ("predict", "{}", "an output"),
    ],
)
def test_json_that_is_not_the_answer(signature, outputs, words):
    server = FakeHTTP(plain(200, b'{"outputs": %s}' % outputs.encode()))
    refuses(server, CALLS[signature], words)


def tensor(values, **changes):
    proto = tf.make_tensor_proto(values)
    for name, value in changes.items():
        setattr(proto, name, value)
    return proto


def sized(*shape):
    proto = tensor_pb2.TensorProto(dtype=1, float_val=[0.5])
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


FLOATS = np.full((2, 1, 1), 0.5, "float32")


@pytest.mark.parametrize(
    ("signature", "tensors", "words"),
    [
        ("decode", {}, "the outputs probabilities. Received: none"),
        ("decode", {"x": tensor(FLOATS[:1])}, f"{ROWS} 'x'. Received: shape \\(1, 1, 1\\)"),
        ("decode", {"x": tensor(FLOATS[[0, 0, 0]])}, "shape \\(3"),
        ("decode", {"x": tensor(np.float32(1))}, ROWS),
        ("decode", {"x": tensor(FLOATS[:, 0, 0])}, r"shape \(2,\)"),
        ("decode", {"x": tensor(FLOATS * NAN)}, "2 of 2 numbers NaN"),
        *[("decode", {"x": tensor(FLOATS.astype(t))}, t) for t in ("float64", "int32", "float16")],
        ("decode", {"x": tensor([[b"a"], [b"b"]])}, "object"),
        ("decode", {"x": tensor(FLOATS, tensor_content=b"123")}, "."),
        ("decode", {"x": tensor(FLOATS, dtype=20)}, "."),  # a resource
        ("decode", {"x": tensor(FLOATS, dtype=99)}, "99"),
        ("decode", {"x": sized(2, 1_500_000_000)}, "longer than 64.0 MiB"),
        ("decode", {"x": sized(2, 2**62, 4)}, "longer than 64.0 MiB"),
        ("decode", {"x": sized(2, -1)}, r"\(2, -1\)"),
        ("generate", {"images": tensor(FLOATS)}, "the outputs images, z.*without z"),
        ("generate_png", {"png_bytes": tensor(FLOATS[:, 0, 0])}, "files"),
        ("encode", {"z_mean": tensor(FLOATS)}, "without z_log_var"),
        ("reconstruct", {"images": tensor(FLOATS)}, r"\(rows, 3, 4\)"),
        ("score", {"elbo": tensor(FLOATS)}, r"\(rows\)"),
        ("predict", {}, "an output"),
    ],
)
def test_tensors_that_are_not_the_answer(signature, tensors, words):
    refuses(FakeGrpc(lambda _: response_of(**tensors)), CALLS[signature], words)


@pytest.mark.parametrize(
    "states",
    [
        *["null", "3", "[3]", "[null]", '[{"version": "1"}]', "[" * 100_000],
        *[f'[{{"version": {v}, "state": "END"}}]' for v in ("Infinity", "null", '"one"', "[]")],
        '[{"version": "1", "state": null}]',
    ],
)
def test_states_that_are_none(states):
    server = FakeHTTP(plain(200, b'{"model_version_status": %s}' % states.encode()))
    refuses(server, lambda c: c.status(), ".")


def test_a_state_that_grpc_has_no_name_for():
    refuses(FakeGrpc(lambda _: {1: 7}), lambda c: c.status(), "7")


# Size and time.


def bomb(megabytes=64):
    return gzip.compress(b'{"outputs": [' + b" " * (megabytes << 20))


def endless(head, part):
    def talk(connection):
        connection.recv(2**16)
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return talk


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (endless(OK + b"\r\n", b" " * 2**16), "longer than 1.0 MiB.*batch_size.*answer_bytes"),
        (endless(OK + b"Content-Length: 9999999999\r\n\r\n", b" " * 2**16), "longer than"),
        (
            endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n%4096s\r\n" % b""),
            "longer",
        ),
        (endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 2**16), "."),  # of one chunk
        (endless(OK + b"Content-Encoding: gzip\r\n\r\n", bomb()), "longer than 1.0 MiB"),
        (endless(OK + b"Content-Encoding: br\r\n\r\n", b"0" * 2**16), "Content-Encoding.*br"),
        (endless(OK + b"Content-Encoding: gzip\r\n\r\n", b"0" * 2**16), "."),  # of no gzip
        (endless(b"HTTP/1.1 500 No\r\n\r\n", b" " * 2**16), "longer than"),
        (endless(OK, b"X-More: 1\r\n"), "."),
        (endless(OK + b"X-Long: ", b"1" * 2**16), "."),
    ],
    ids=[
        "endless",
        "length",
        "chunks",
        "chunk size",
        "bomb",
        "br",
        "no gzip",
        "500",
        "heads",
        "head",
    ],
)
def test_an_answer_that_is_too_long_is_not_read(talk, words, waits):
    with listening(talk) as address, taking(0, 3):
        tracemalloc.start()
        with Client(f"http://{address}", timeout=3, answer_bytes=2**20) as c:
            with pytest.raises(ServingError, match=words) as caught:
                c.decode([[1.0]])
            assert caught.value.code in ("UNKNOWN", "UNAVAILABLE")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_gzip_that_a_proxy_sends_is_read():
    text = gzip.compress(json.dumps({"outputs": [[0.25], [0.5]]}).encode())
    answer = plain(200, text, **{"Content-Encoding": "gzip"})
    with FakeHTTP(answer) as server, Client(server.address) as c:
        np.testing.assert_array_equal(CALLS["decode"](c), [[0.25], [0.5]])


def test_a_long_answer_by_grpc_is_not_read(waits):
    files, call = [bytes(2**20)] * 2, CALLS["generate_png"]
    refuses(FakeGrpc(lambda _: files), call, "longer than 1.0 MiB", answer_bytes=2**20)
    with FakeGrpc(lambda _: files) as server, Client(server.address) as c:
        assert call(c) == files
    assert waits == []


def test_what_comes_compressed_by_grpc_is_not_expanded():
    """By a server that compresses unasked, which gRPC's own does not; gRPC limits only what comes."""

    def frame(kind, flags, stream, body=b""):
        return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body

    def header(name, value):
        return bytes([0, len(name)]) + name + bytes([len(value)]) + value

    def talk(connection):
        connection.sendall(frame(4, 0, 0))
        while b"Predict" not in connection.recv(2**16):
            pass
        body = gzip.compress(bytes(50 << 20))
        body = b"\x01" + struct.pack("!I", len(body)) + body
        head = header(b"content-type", b"application/grpc") + header(b"grpc-encoding", b"gzip")
        connection.sendall(frame(4, 1, 0) + frame(1, 4, 1, b"\x88" + head))
        for start in range(0, len(body), 2**14):
            connection.sendall(frame(0, 0, 1, body[start : start + 2**14]))
        connection.sendall(frame(1, 5, 1, header(b"grpc-status", b"0")))
        connection.recv(2**16)

    with listening(talk) as address, Client(f"grpc://{address}", timeout=3) as c:
        fails("INTERNAL", lambda: c.decode([[1.0]]), "gzip.*disabled")


def test_reading_counts_in_the_deadline(kind, monkeypatch):
    name = {"http": "from_json", "grpc": "from_tensors"}[kind]
    read = getattr(answers, name)
    monkeypatch.setattr(answers, name, lambda *given: time.sleep(0.3) or read(*given))
    with fake(kind, lambda inputs: inputs["z"]) as server, Client(server.address, timeout=0.2) as c:
        fails("DEADLINE_EXCEEDED", lambda: CALLS["decode"](c), "0.2 s")


@pytest.mark.parametrize("flaw", [RecursionError, StopIteration, MemoryError])
def test_no_other_exception_escapes(kind, flaw, monkeypatch):
    def failing(*_):
        raise flaw

    for name in ("from_json", "from_tensors", "from_states"):
        monkeypatch.setattr(answers, name, failing)
    answer = {True: [[1.0]], False: {1: 30}}
    with (
        fake(kind, lambda inputs: answer[inputs is not None]) as server,
        Client(server.address) as c,
    ):
        for call in (lambda: c.decode([[1.0]]), c.status):
            fails("UNKNOWN", call, flaw.__name__)


@pytest.fixture
def waits(monkeypatch):
    waits = []
    monkeypatch.setattr(client.time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    ("words", "attempts"),
    [
        ("SERVER: Received message larger than max (4200000 vs. 4194304)", 1),
        ("gRPC message exceeds maximum size 4194304: 4200000", 1),
        ("This server has 100 requests under way, as many as it takes.", 6),
        ("The queue is too long.", 6),
    ],
)
def test_sizes_are_not_tried_again_and_overloads_are(kind, words, attempts, waits):
    def answer(_):
        raise ServingError("RESOURCE_EXHAUSTED", words)

    code = "INVALID_ARGUMENT" if attempts == 1 else "RESOURCE_EXHAUSTED"
    with fake(kind, answer) as server, Client(server.address) as c:
        fails(code, lambda: CALLS["decode"](c), words[:20])
    assert len(server.asked) == attempts


def test_a_servers_words_are_cut_and_do_not_steer_a_terminal(kind):
    def answer(_):
        raise ServingError("INTERNAL", "Red: \x1b[31m" + "x" * 5000)

    with (
        fake(kind, answer) as server,
        Client(server.address) as c,
        pytest.raises(ServingError, match=r"Red: \\x1b\[31m") as caught,
    ):
        CALLS["decode"](c)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 1010


# Many rows.


def seeds_as_images(method, body):
    seeds = json.loads(body)["inputs"]["seed"]
    rows = [[seed % 1000, 0.5] for seed in seeds]
    return 200, json.dumps({"outputs": {"images": rows, "z": rows}}).encode(), {}


def test_what_does_not_fit_is_refused_after_one_request(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 2**30)
    with FakeHTTP(seeds_as_images) as server, Client(server.address) as c, taking(0, 1):
        message = (
            r"'num': .*1.0 GiB.*Received: 1000000000 rows, which takes 14.9 GiB. Ask for fewer"
        )
        for call in (c.generate, lambda num: c.generate(num, seed=3)):
            with pytest.raises(ValueError, match=message):
                call(10**9)
        with pytest.raises(ValueError, match="'num'"):
            c.generate(10**30)
    assert len(server.asked) == 2


def test_many_rows_are_those_of_their_seeds():
    with FakeHTTP(seeds_as_images) as server, Client(server.address, batch_size=7) as c:
        images = c.generate(100, seed=5)
        assert len(server.asked) == 15
        np.testing.assert_array_equal(images[:, 0], row_seeds(5, 100) % 1000)
        assert images.flags.writeable
        assert not np.array_equal(c.generate(20), c.generate(20))


def test_a_version_that_comes_between_two_requests_is_told(kind):
    """Its images have another size."""
    shapes = iter([(2, 1), (2, 3)])
    with (
        fake(kind, lambda _: np.zeros(next(shapes), "float32")) as server,
        Client(server.address, batch_size=2) as c,
        pytest.raises(ServingError, match=r"first answer, rows \(1,\) of float32.*rows \(3,\)"),
    ):
        c.decode(np.zeros((4, 1)))
