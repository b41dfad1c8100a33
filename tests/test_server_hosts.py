"""Who may ask the embedded server, and where it listens."""

# ruff: noqa: F811  fixtures are imported by their names

import socket

import pytest
import urllib3
from servers import BODY, SECONDS, ask, exports, models, own, serve, server, threads  # noqa: F401

from vae_tf.serving.server import EmbeddedServer

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def test_by_default_only_this_machine_is_answered(server):
    for address in (server.rest_address, server.grpc_address):
        host, port = address.split(":")
        assert host == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):  # what listens everywhere listens here too
            socket.create_connection(("127.0.0.2", int(port)), timeout=SECONDS)


def test_what_cannot_be_served(models, tmp_path, server):
    rest, grpc_ = (int(a.split(":")[1]) for a in (server.rest_address, server.grpc_address))
    with pytest.raises(ValueError, match=r"'rest_port'.*--rest-port"):
        EmbeddedServer(models, rest_port=rest, grpc_port=0).start()
    with pytest.raises(ValueError, match=r"'grpc_port'.*--grpc-port"):
        EmbeddedServer(models, rest_port=0, grpc_port=grpc_).start()
    with pytest.raises(ValueError, match="'path'"):
        serve(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="'path'"):
        serve(tmp_path / "empty")
    (tmp_path / "empty" / "1").mkdir()
    with pytest.raises(ValueError, match=r"'path'.*loads"):
        serve(tmp_path / "empty").start()
    with pytest.raises(ValueError, match=r"'label'.*stable=7"):
        serve(models, labels={"stable": 7}).start()
    assert ask(server)[0] == 200


def test_the_page(server):
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", f"http://{server.rest_address}/", redirect=False)
    assert answer.status in (302, 303, 307)
    assert answer.headers["Location"] == "/?endpoint=/v1/models/vae"
    status, text = ask(server, answer.headers["Location"], None)
    assert status == 200
    assert "<html" in text


@pytest.mark.parametrize("cors", [True, False])
def test_pages_from_elsewhere_ask_only_if_allowed(models, cors):
    with serve(models, cors=cors) as server, urllib3.PoolManager() as pool:
        url, origin = f"http://{server.rest_address}/v1/models/vae:predict", {"Origin": "http://x"}
        wish = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        answer = pool.request("POST", url, body=BODY, headers=origin)
        preflight = pool.request("OPTIONS", url, headers=origin | wish)
        assert answer.status == (200 if cors else 403)
        assert ("--cors" in answer.json().get("error", "")) != cors
        for headers in (answer.headers, preflight.headers):
            assert headers.get("Access-Control-Allow-Origin") == ("*" if cors else None)
        assert (preflight.status == 200) == cors
        if cors:
            assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
            assert "content-type" in preflight.headers["Access-Control-Allow-Headers"].lower()


def status_for(server, host, origin=None):
    """Of a prediction that is asked for under the name `host`, by a page of `origin`."""
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    return ask(server, headers=headers)[0]


def test_on_loopback_only_its_names_are_answered(server):
    """By DNS rebinding a page's own name points here, and then it is in `Host`."""
    for host in ("localhost", "LocalHost:1", "127.0.0.1:8501", "127.9.9.9", "[::1]:8501"):
        assert status_for(server, host) == 200, host
    for host in ("evil.example", "localhost.evil.example:8501", "10.0.0.1", "[::2]", "[", "a b"):
        assert status_for(server, host) in (400, 403), host
    for path in ("/", "/healthz", "/v1/models/vae", "/monitoring/prometheus/metrics"):
        status, answer = ask(server, path, None, headers={"Host": "evil.example"})
        assert status == 403
        assert "--allow-host NAME" in answer["error"]


def test_a_page_asks_the_server_that_it_came_from(server):
    own = server.rest_address
    assert status_for(server, own, f"http://{own}") == 200
    assert status_for(server, "localhost:8501", "http://localhost:8501") == 200
    others = ("http://localhost:3000", "http://evil.example", "https://127.0.0.1", "null", "x")
    for origin in others:
        assert status_for(server, own, origin) == 403, origin


def test_names_that_are_allowed(models):
    with serve(models, allowed_hosts=["Demo.example"]) as server:
        for host in ("demo.example", "demo.example:443", server.rest_address):
            assert status_for(server, host, "https://demo.example") == 200
        assert status_for(server, "other.example") == 403
        assert status_for(server, "demo.example", "https://other.example") == 403


def test_beyond_loopback_any_name_is_answered_unless_some_are_given(models):
    """A cluster's probes ask by the pod's address, and services by their names."""
    with serve(models, host="0.0.0.0") as server:
        assert status_for(server, "10.1.2.3:8501") == 200
        assert ask(server, "/healthz", None, headers={"Host": "vae"})[0] == 200
        assert status_for(server, "vae", "http://evil.example") == 403
    with serve(models, host="0.0.0.0", allowed_hosts=["vae"]) as server:
        assert status_for(server, "vae:8501") == 200
        assert status_for(server, "other.example") == 403


def test_a_page_cannot_speak_to_the_grpc_port(server):
    """It wants HTTP/2 from the first byte, which browsers speak over TLS alone."""
    host, port = server.grpc_address.split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\n"
        connection.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    assert not answer.startswith(b"HTTP/1.1 200")


def test_a_model_has_a_name(models):
    with pytest.raises(ValueError, match=r"'name'.*not empty"):
        serve(models, name="")
