"""`vae_tf.serving.Client`: what it draws against the model's own, what it sends against servers made to fail."""

import base64
import concurrent.futures
import contextlib
import io
import json
import socket
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from fake_servers import (
    OK,
    SLACK,
    FakeHTTP,
    Handler,
    dripping,
    echo,
    fails,
    fake,
    in_turn,
    listening,
    plain,
    taking,
)
from helpers import run_python
from PIL import Image
from small_models import Autoencoder, Labelled

from vae_tf import VAE, cli, export_decoder, generate_from_saved_model, layers
from vae_tf.random import row_seeds
from vae_tf.serving import Client, ServingError, client
from vae_tf.serving.server import EmbeddedServer, Limits

SHAPE, Z = (6, 5, 1), [[0.5, -1.0], [2.0, 0.0], [-0.5, 0.25]]
EXTREMES = [0, -1, 2**63 - 1, -(2**63), 7]


@pytest.fixture(params=["http", "grpc"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`(directory, model by version)`: versions 1 and 2."""
    path, models = tmp_path_factory.mktemp("export") / "m", {}
    for version in (1, 2):
        models[version] = VAE(latent_dim=2, hidden_units=(8,), seed=version)
        models[version].build((None, *SHAPE))
        export_decoder(models[version], path, with_encoder=True)
    return path, models


@pytest.fixture(scope="module")
def server(models):
    with EmbeddedServer(models[0], rest_port=0, grpc_port=0, labels={"old": 1}) as server:
        yield server


@pytest.fixture
def ask(server, kind):
    """A function that gives a client of the embedded server."""
    address = {"http": server.rest_address, "grpc": server.grpc_address}[kind]
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Client(f"{kind}://{address}", **options))


# What it gives.


def test_generate_draws_what_the_model_draws(ask, models):
    images = ask().generate(9, seed=4)
    assert (images.shape, images.dtype) == ((9, *SHAPE), np.float32)
    np.testing.assert_allclose(images, models[1][2].generate(9, seed=4), atol=1e-6)
    np.testing.assert_array_equal(ask(batch_size=4).generate(9, 4), images)
    assert ask().generate().shape == (1, *SHAPE)
    assert not np.array_equal(ask().generate(), ask().generate())


def test_a_seed_an_image(ask, models):
    signature = tf.saved_model.load(str(models[0] / "2")).signatures["generate"]
    expected = signature(seed=tf.constant(EXTREMES, tf.int64))["images"].numpy()
    assert len(np.unique(expected, axis=0)) == len(EXTREMES)
    for seeds in (EXTREMES, np.array(EXTREMES)):
        np.testing.assert_allclose(ask().generate(seeds=seeds), expected, atol=1e-6)
    np.testing.assert_allclose(ask().generate(seeds=7), expected[4:], atol=1e-6)
    np.testing.assert_allclose(
        ask().generate(seeds=np.array([7], "uint64")), expected[4:], atol=1e-6
    )


def test_decode(ask, models):
    images = ask().decode(Z)
    np.testing.assert_allclose(
        images, models[1][2].decode_images(np.array(Z, "float32")), atol=1e-6
    )


def test_png_files_are_the_images(ask):
    files = ask(batch_size=2).generate_png(5, seed=4)
    assert len(files) == 5
    for file, image in zip(files, ask().generate(5, seed=4), strict=True):
        with Image.open(io.BytesIO(file)) as picture:
            assert picture.format == "PNG"
            np.testing.assert_array_equal(picture, np.round(255 * image[..., 0]).astype("uint8"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bool"])
def test_images_in(ask, models, dtype):
    """Their codes, reconstructions and ELBOs are the model's; bytes and booleans are taken as it takes them."""
    model, images = models[1][2], np.random.default_rng(0).random((5, *SHAPE))
    images = np.round(images * {"uint8": 255}.get(dtype, 1), 0 if dtype == "bool" else 7)
    images = images.astype(dtype)
    z_mean, z_log_var = ask(batch_size=2).encode(images)
    for found, expected in zip((z_mean, z_log_var), model.encode(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    found = ask(batch_size=2).reconstruct(images)
    np.testing.assert_allclose(found, model.reconstruct(images), atol=1e-6)
    floats = images / np.float32(255) if dtype == "uint8" else images.astype("float32")
    for given, seeds in (({"seed": 3}, row_seeds(3, 5)), ({"seeds": EXTREMES}, EXTREMES)):
        with layers.drawing(layers.PerSeed(np.array(seeds))):
            expected = -model.terms(tf.constant(floats))["loss"]
        found = ask(batch_size=2).score(images, **given)
        assert found.shape == (5,)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.array_equal(ask().score(images), ask().score(images))


def test_seed_7_is_one_image(ask, models):
    """Of the model, of the client by either of its arguments, and of the signature's `seed` itself."""
    model = models[1][2]
    signature = tf.saved_model.load(str(models[0] / "2")).signatures["generate"]
    expected = signature(seed=tf.constant([7], tf.int64))["images"]
    for images in (
        model.generate(1, seed=7),
        model.generate(9, seed=7)[:1],
        ask().generate(1, seed=7),
        ask().generate(seeds=[7]),
        generate_from_saved_model(models[0], 1, seed=7),
    ):
        np.testing.assert_allclose(images, expected, atol=1e-6)
    assert not np.allclose(model.generate(9, seed=7)[1:], model.generate(9, seed=8)[:-1], atol=0.01)


def test_versions(ask, models):
    assert ask().status() == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert ask(version=1).status() == {1: "AVAILABLE"}
    old = models[1][1].generate(3, seed=0)
    assert not np.allclose(old, models[1][2].generate(3, seed=0), atol=1e-3)
    for which in ({"version": 1}, {"version_label": "old"}):
        np.testing.assert_allclose(ask(**which).generate(3, seed=0), old, atol=1e-6)
    ask().wait_until_ready(timeout=1)


@pytest.mark.parametrize(
    ("options", "call", "code", "words"),
    [
        ({"model": "nobody"}, lambda c: c.generate(), "NOT_FOUND", "nobody"),
        ({"model": "nobody"}, lambda c: c.status(), "NOT_FOUND", "model nobody"),
        ({"version": 3}, lambda c: c.generate(), "NOT_FOUND", r"Specific\(vae, 3\)"),
        ({"version_label": "new"}, lambda c: c.generate(), "INVALID_ARGUMENT|NOT_FOUND", "new"),
        ({}, lambda c: c.decode([[1.0]]), "INVALID_ARGUMENT", "'z'"),
        ({}, lambda c: c.generate(label=[3]), "INVALID_ARGUMENT", "label"),
        (
            {},
            lambda c: c.predict("paint", seed=[1]),
            "INVALID_ARGUMENT|FAILED_PRECONDITION",
            "paint",
        ),
        ({"batch_size": 2000}, lambda c: c.generate(1025), "INVALID_ARGUMENT", "1024"),
    ],
)
def test_the_servers_own_words(ask, options, call, code, words):
    with pytest.raises(ServingError, match=words) as caught:
        call(ask(**options))
    assert caught.value.code in code.split("|")
    assert str(caught.value) == f"{caught.value.code}: {caught.value.message}"


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A model with a condition, and a server of it."""
    model = Labelled(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, *SHAPE))
    path = tmp_path_factory.mktemp("conditional") / "m"
    export_decoder(model, path, with_encoder=True)
    with EmbeddedServer(path, rest_port=0, grpc_port=0) as server:
        yield model, {"http": server.rest_address, "grpc": server.grpc_address}


@pytest.mark.parametrize("label", [3, [3], np.int32(1), [2, 0, 1, 3, 0]])
def test_a_condition_is_one_for_all_or_one_for_each(conditional, kind, label):
    model, addresses = conditional
    num = 5 if np.ndim(label) == 0 else len(label)
    z = np.random.default_rng(0).normal(size=(num, 2)).astype("float32")
    with Client(f"{kind}://{addresses[kind]}", batch_size=2) as c:
        images = c.generate(num, seed=4, label=label)
        decoded = c.decode(z, label=label)
        files = c.generate_png(num, seed=4, label=label)
        codes = c.encode(images, label=label)
        again, elbo = c.reconstruct(images, label=label), c.score(images, seed=4, label=label)
    rows = np.broadcast_to(label, num)
    for found, expected in zip(codes, model.encode(images, rows), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(again, model.reconstruct(images, rows), atol=1e-6)
    assert np.isfinite(elbo).all()
    np.testing.assert_allclose(images, model.generate(num, 4, label), atol=1e-6)
    np.testing.assert_allclose(decoded, model.decode_images(z, label), atol=1e-6)
    with Image.open(io.BytesIO(files[-1])) as picture:
        np.testing.assert_array_equal(picture, np.round(255 * images[-1, ..., 0]).astype("uint8"))


def test_a_condition_that_is_missing_or_another_is_named(conditional, kind):
    _, addresses = conditional
    with Client(f"{kind}://{addresses[kind]}") as c:
        for given in ({}, {"angle": 1.0}, {"label": 1, "angle": 1.0}):
            fails(
                "INVALID_ARGUMENT", lambda g=given: c.generate(2, seed=0, **g), "label, seed; got"
            )


def test_a_label_that_there_is_not_is_answered_with_the_range(conditional, kind, tmp_path, capsys):
    """The command's exit status is that of a call that cannot be used, and nothing is written."""
    address = f"{kind}://{conditional[1][kind]}"
    with Client(address) as c:
        for label in (4, -1, [0, 7]):
            words = rf"label: expected labels from 0 to 3\. Received: {np.ravel(label)[-1]}\."
            fails("INVALID_ARGUMENT", lambda n=label: c.generate(2, seed=0, label=n), words)
            fails("INVALID_ARGUMENT", lambda n=label: c.decode(np.zeros((2, 2)), label=n), words)
    out = ["--out", str(tmp_path / "made.png")]
    assert cli.main(["generate", address, "--label", "4", *out]) == 2
    assert "labels from 0 to 3" in capsys.readouterr().err
    assert cli.main(["generate", address, *out]) == 2
    assert "--label gives one of that name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_was_not_exported(tmp_path, kind):
    model = VAE(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, *SHAPE))
    export_decoder(model, tmp_path / "m")
    images = np.zeros((2, *SHAPE))
    with EmbeddedServer(tmp_path / "m", rest_port=0, grpc_port=0) as server:
        address = {"http": server.rest_address, "grpc": server.grpc_address}[kind]
        with Client(f"{kind}://{address}") as c:
            for call in (c.encode, c.reconstruct, c.score):
                code = {"http": "INVALID_ARGUMENT", "grpc": "FAILED_PRECONDITION"}[kind]
                words = f'"{call.__name__}" not found.*vae-tf export RUN --with-encoder'
                fails(code, lambda call=call: call(images), words)


def test_a_code_that_is_no_gaussians(tmp_path, kind):
    model = Autoencoder()
    model.build((None, 6, 5, 1))
    export_decoder(model, tmp_path / "m", with_encoder=True)
    images = np.random.default_rng(0).random((3, 6, 5, 1))
    with EmbeddedServer(tmp_path / "m", rest_port=0, grpc_port=0) as server:
        address = {"http": server.rest_address, "grpc": server.grpc_address}[kind]
        with Client(f"{kind}://{address}") as c:
            np.testing.assert_allclose(c.encode(images), model.encode(images), atol=1e-5)


def test_a_request_that_is_too_long_is_sent_once(models, kind, waits):
    limits = Limits(request_bytes=400)
    with EmbeddedServer(models[0], rest_port=0, grpc_port=0, limits=limits) as server:
        address = {"http": server.rest_address, "grpc": server.grpc_address}[kind]
        with Client(f"{kind}://{address}") as c:
            c.generate(2)
            fails("INVALID_ARGUMENT", lambda: c.generate(64), "400")
    assert waits == []


def test_eight_threads_at_once(ask, models):
    one = ask(batch_size=3)
    expected = [models[1][2].generate(7, seed) for seed in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: one.generate(7, seed), range(16)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_over_rest_it_needs_neither_tensorflow_nor_keras(server, models):
    code = (
        "import sys\n"
        "from vae_tf.serving import Client\n"
        "images = Client(sys.argv[1]).generate(2, seed=4)\n"
        "heavy = {'tensorflow', 'keras', 'grpc', 'starlette', 'tensorflow_serving'}\n"
        "assert not heavy & {name.partition('.')[0] for name in sys.modules}, sys.modules.keys()\n"
        "print(images.tolist())"
    )
    images = json.loads(run_python(code, f"http://{server.rest_address}"))
    np.testing.assert_allclose(images, models[1][2].generate(2, seed=4), atol=1e-6)


# Servers that are made to fail.


@pytest.fixture
def waits(monkeypatch):
    """How long the client waited; here without jitter, and shorter than it would."""
    waits, clock = [], types.SimpleNamespace(**vars(time))
    clock.sleep = lambda seconds: waits.append(seconds) or time.sleep(seconds)
    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(client, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(client.random, "uniform", lambda low, high: high)
    return waits


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_may_be_asked_again_is(kind, code, waits):
    with fake(kind, in_turn(code, code, code, None)) as server, Client(server.address) as c:
        np.testing.assert_array_equal(c.decode(Z), Z)
    assert len(server.asked) == 4
    gaps = np.diff(server.asked)
    assert (gaps >= [0.02, 0.04, 0.08]).all()
    assert (gaps <= np.array([0.02, 0.04, 0.08]) + SLACK).all()
    assert waits == [0.02, 0.04, 0.08]


def test_waits_have_a_longest(waits, monkeypatch):
    monkeypatch.setattr(client, "LONGEST_WAIT", 0.1)
    with fake("http", in_turn("UNAVAILABLE")) as server, Client(server.address) as c:
        fails("UNAVAILABLE", lambda: c.decode(Z))
    assert waits == [0.02, 0.04, 0.08, 0.1, 0.1]


def test_jitter_spreads_the_waits(monkeypatch):
    slept = []
    monkeypatch.setattr(client.time, "sleep", slept.append)
    with fake("http", in_turn("UNAVAILABLE")) as server, Client(server.address) as c:
        for _ in range(8):
            fails("UNAVAILABLE", lambda: c.decode(Z))
    waits = np.reshape(slept, (8, 5)) / (0.1 * 2.0 ** np.arange(5))
    assert len(np.unique(waits)) == 40
    assert ((waits >= 0.5) & (waits <= 1)).all()


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL"])
def test_what_would_fail_again_is_asked_once(kind, code, waits):
    with fake(kind, in_turn(code)) as server, Client(server.address) as c:
        fails(code, lambda: c.decode(Z), f"^I am {code}.$")
    assert (len(server.asked), waits) == (1, [])


def test_attempts_end_with_the_last_error(kind, waits):
    answers = in_turn(*["RESOURCE_EXHAUSTED"] * 5, "UNAVAILABLE", None)
    with fake(kind, answers) as server, Client(server.address) as c:
        fails("UNAVAILABLE", lambda: c.decode(Z), "I am UNAVAILABLE")
    assert len(server.asked) == 6


def test_the_deadline_ends_the_attempts(kind):
    with (
        fake(kind, in_turn("UNAVAILABLE")) as server,
        Client(server.address, timeout=0.4) as c,
        taking(0.1, 0.4),
    ):
        fails("UNAVAILABLE", lambda: c.decode(Z))
    assert 1 < len(server.asked) < 6


@pytest.mark.parametrize(
    "talk",
    [
        dripping(b"", OK + b"X-Long: " + b"x" * 400),
        dripping(OK + b"Content-Length: 400\r\n\r\n", b" " * 400),
        dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"190\r\n" + b" " * 400),
        dripping(OK + b"\r\n", b" " * 400),  # its end would be that of the connection
    ],
    ids=["head", "body", "chunks", "no length"],
)
def test_a_server_that_drips_does_not_outlive_the_deadline(talk):
    with listening(talk) as address, Client(f"http://{address}", timeout=0.4) as c:
        for call in (lambda: c.decode(Z), c.status):
            with taking(0.39, 0.4):
                fails("DEADLINE_EXCEEDED", call)


def test_a_server_that_never_answers(kind):
    with listening() as address, Client(f"{kind}://{address}", timeout=0.4, batch_size=1) as c:
        for call in (lambda: c.decode(Z[:1]), lambda: c.decode(Z * 7), c.status):
            with taking(0.39, 0.4):
                fails("DEADLINE_EXCEEDED", call)
        with taking(0.2, 0.3):
            fails("DEADLINE_EXCEEDED", lambda: c.wait_until_ready(0.3))


def test_an_answer_that_breaks_off_is_asked_for_again(waits):
    answers = [(200, b'{"outputs"', {"Content-Length": 50}), (200, b'{"outputs": [[1]]}', {})]
    with FakeHTTP(lambda *_: answers[len(server.asked) - 1]) as server:
        server.daemon_threads = True
        server.RequestHandlerClass = type("Breaks", (Handler,), {"protocol_version": "HTTP/1.0"})
        with Client(server.address) as c:
            np.testing.assert_array_equal(c.decode([[1.0]]), [[1]])
    assert len(server.asked) == 2


@contextlib.contextmanager
def reserved_port():
    """A port where nothing listens."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def test_a_server_that_is_not_there(kind, waits):
    with reserved_port() as port, Client(f"{kind}://127.0.0.1:{port}") as c:
        fails("UNAVAILABLE", c.generate, f"{port}.*refused")
        assert len(waits) == 5
        with taking(0.2, 0.5):
            fails("UNAVAILABLE", lambda: c.wait_until_ready(0.5), f"{port}.*refused")


def test_a_server_that_comes_late_is_waited_for(kind):
    with reserved_port() as port:
        pass
    come = threading.Event()
    with contextlib.ExitStack() as stack:
        late = threading.Timer(
            0.5,
            lambda: (
                stack.enter_context(fake(kind, lambda _: {1: 30}, port)),  # 30: AVAILABLE
                come.set(),
            ),
        )
        late.start()
        with Client(f"{kind}://127.0.0.1:{port}") as c, taking(0.5, 1.5):
            c.wait_until_ready(10)
        assert come.wait(5)
        late.join()


def test_a_version_that_loads_is_waited_for(kind, waits):
    states = {1: 20}  # LOADING
    with fake(kind, lambda _: states) as server, Client(server.address) as c:
        with taking(0.2, 0.4):
            fails("UNAVAILABLE", lambda: c.wait_until_ready(0.4), "LOADING")
        threading.Timer(0.2, states.update, [{2: 30}]).start()
        with taking(0.15, 0.8):
            c.wait_until_ready(10)


# What is sent, and how.


def test_large_requests_go_in_chunks_and_come_back_in_order(kind):
    active, most, sizes, lock = 0, 0, [], threading.Lock()

    def slow_echo(inputs):
        nonlocal active, most
        with lock:
            active, number = active + 1, len(sizes)
            most = max(most, active)
            sizes.append(len(inputs["z"]))
        time.sleep(0.1 if number % 4 == 0 else 0.01)
        with lock:
            active -= 1
        return inputs["z"]

    z = np.arange(2 * 43, dtype="float32").reshape(-1, 2)
    with fake(kind, slow_echo) as server, Client(server.address, batch_size=4) as c:
        np.testing.assert_array_equal(c.decode(z), z)
        assert sorted(sizes) == [3] + [4] * 10
        assert 1 < most <= 4
        sizes.clear()
        c.decode(z[:4])
        assert sizes == [4]
    with fake(kind, echo) as server, Client(server.address) as c:
        np.testing.assert_array_equal(c.decode(np.zeros((65, 1))), np.zeros((65, 1)))
        assert len(server.asked) == 2  # deploy/batching.config takes 64


def test_one_chunk_that_fails_is_the_answer(kind):
    def picky(inputs):
        if np.asarray(inputs["z"]).min() < 0:
            raise ServingError("INVALID_ARGUMENT", "Nothing negative.")
        return inputs["z"]

    with fake(kind, picky) as server, Client(server.address, batch_size=1) as c:
        fails("INVALID_ARGUMENT", lambda: c.decode([[1.0], [1.0], [-1.0], [1.0]]), "negative")


def test_connections_are_kept():
    with fake("http", echo) as server, Client(server.address) as c:
        for _ in range(10):
            c.decode(Z)
        assert (len(server.asked), server.connections) == (10, 1)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "vae"),
        ({"model": "a b/c"}, "a%20b%2Fc"),
        ({"version": 12}, "vae/versions/12"),
        ({"version_label": "a/b:c"}, "vae/labels/a%2Fb%3Ac"),
    ],
)
def test_addresses(options, path):
    with fake("http", echo) as server:
        for address in (server.address, server.address + "/"):
            with Client(address, **options) as c:
                c.decode(Z)
    assert server.paths == [f"/v1/models/{path}:predict"] * 2


def test_redirects_are_not_followed():
    elsewhere = plain(307, b"", Location="/elsewhere")
    with FakeHTTP(elsewhere) as server, Client(server.address) as c:
        fails("UNKNOWN", lambda: c.decode(Z), "307")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "text", "code", "words"),
    [
        (500, b"", "INTERNAL", "500"),
        (502, b"<h1>Bad gateway</h1>", "UNKNOWN", "Bad gateway"),
        (404, b'{"error": {"code": 5}}', "NOT_FOUND", "5"),
        (400, b"[1]", "INVALID_ARGUMENT", "1"),
        (413, b'{"error": "too long"}', "INVALID_ARGUMENT", "too long"),
        (200, b"hello", "UNKNOWN", "hello"),
        (200, b"\xff\xfe", "UNKNOWN", "."),
        (200, b"[]", "UNKNOWN", "."),
        (200, b"{}", "UNKNOWN", "."),
        (200, b'{"outputs": null}', "UNKNOWN", "None"),
        (200, b'{"outputs": []}', "UNKNOWN", "."),
        (200, b'{"outputs": {}}', "UNKNOWN", "."),
        (200, b'{"outputs": "abc"}', "UNKNOWN", "abc"),
        (200, b'{"outputs": [[0.5], [0.5]]}', "UNKNOWN", "."),  # one output, and not by name
        (200, b'{"outputs": {"images": [[1], [2, 3]]}}', "UNKNOWN", "."),
        (200, b'{"outputs": {"images": [{"b65": 3}, {"b65": 3}]}}', "UNKNOWN", "b6"),
        (200, b'{"model_version_status": [3]}', "UNKNOWN", "3"),
    ],
)
def test_answers_that_are_none(status, text, code, words):
    with FakeHTTP(plain(status, text)) as server, Client(server.address) as c:
        for call in (lambda: c.generate(2, seed=0), c.status):
            fails(code, call, words)
    assert len(server.asked) == 2


def test_bytes_come_as_base64():
    files = [b"\x00\xff", b""]
    column = [{"b64": base64.b64encode(file).decode()} for file in files]
    with (
        FakeHTTP(plain(200, json.dumps({"outputs": column}).encode())) as server,
        Client(server.address) as c,
    ):
        assert c.generate_png(2, seed=0) == files


@pytest.mark.parametrize(
    "options",
    [
        *[{"address": a} for a in ("localhost:8501", "ftp://host:1", "http://", "grpc://", 8501)],
        *[{"address": a} for a in ("grpc://host", "http://a b:1", "http://h:99999", "", None)],
        *[{"timeout": t} for t in (0, -1, float("nan"), float("inf"), "3", None, True)],
        *[{"batch_size": b} for b in (0, -1, 2.5, "8", None)],
        *[{"version": v} for v in (0, -1, "1", 1.0)],
        {"version": 1, "version_label": "stable"},
    ],
    ids=str,
)
def test_clients_that_make_no_sense(options):
    with pytest.raises((ValueError, TypeError), match=[*options][-1]):
        Client(**{"address": "http://localhost:8501"} | options)


NAN, INF = float("nan"), float("inf")
IMAGES = np.ones((2, *SHAPE))


@pytest.mark.parametrize(
    "call",
    [
        *[lambda c, n=n: c.generate(n) for n in (0, -1, 2.5, "3", True)],
        *[lambda c, s=s: c.generate(3, seed=s) for s in (-1, 1.5, "a")],
        lambda c: c.generate(3, seeds=[1, 2, 3]),
        lambda c: c.generate(seed=1, seeds=[1]),
        *[lambda c, s=s: c.generate(seeds=s) for s in ([], [1.0], ["a"], [True], [2**63], [2**64])],
        lambda c: c.generate(seeds=[[1, 2], [3]]),
        lambda c: c.generate_png(seeds=[0.5]),
        *[lambda c, v=v: c.generate(2, label=v) for v in ([0.5, 1], [1], [1, 2, 3], "ab", 0.5)],
        *[lambda c, v=v: c.generate(2, angle=v) for v in ([0.5], "ab", [[1.0]])],
        *[lambda c, z=z: c.decode(z) for z in ([[NAN, 0]], [[INF, 0]], [1, 2], [[1, 2], [3]], [])],
        lambda c: c.decode(np.zeros((0, 2))),
        *[
            lambda c, x=x: c.encode(x)
            for x in (IMAGES * 2, -IMAGES, IMAGES * NAN, IMAGES[0, 0, :, 0], [])
        ],
        *[lambda c, x=x: c.reconstruct(x) for x in ("ab", -IMAGES.astype(int), [[1], [1, 2]])],
        *[lambda c, s=s: c.score(IMAGES, seed=s) for s in (-1, 0.5)],
        *[lambda c, s=s: c.score(IMAGES, seeds=s) for s in ([1], [0.5, 1.5], 1)],
        lambda c: c.score(IMAGES, 1, seeds=[1, 2]),
        lambda c: c.encode(IMAGES, label=[1]),
        lambda c: c.predict("generate"),
        lambda c: c.predict("generate", seed=3),
        lambda c: c.predict("score", images=np.zeros((2, 3)), seed=[1]),
        *[lambda c, t=t: c.wait_until_ready(t) for t in (NAN, -1, "3")],
    ],
)
def test_calls_that_make_no_sense_are_not_sent(call, kind):
    with (
        fake(kind, lambda _: pytest.fail("sent")) as server,
        Client(server.address) as c,
        pytest.raises((ValueError, TypeError)),
    ):
        call(c)
    assert server.asked == []


@pytest.mark.parametrize("call", ["generate", "generate_png", "score"])
@pytest.mark.parametrize("seed", [-1, 0.5, "a", True])
def test_a_seed_that_is_none_is_named(call, seed):
    given = IMAGES if call == "score" else 3
    message = rf"'seed': expected an integer of at least 0. Received: seed={seed!r}"
    with (
        Client("http://localhost:1") as c,
        pytest.raises((ValueError, TypeError), match=message),
    ):
        getattr(c, call)(given, seed=seed)
