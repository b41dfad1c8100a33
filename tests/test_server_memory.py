"""`vae-tf serve` under everything that takes memory, all at once: it stays under 2 GiB."""

import json
import re
import signal
import subprocess
import sys
import threading
import types

import grpc
import pytest
import tensorflow as tf
import urllib3
from helpers import REPOSITORY
from raw_clients import PREDICTION, call, connect_to
from servers import HEAD, SECONDS, ask, message

MOST = 2 * 2**20  # KiB
GENERATE = json.dumps({"signature_name": "generate", "inputs": [1] * 1024}).encode()


def start():
    words = ["serve", "--engine", "embedded", "--rest-port", "0", "--grpc-port", "0"]
    export = REPOSITORY / "saved_models" / "mnist_z10"
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "vae_tf", *words, str(export)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    text = "".join(iter(child.stdout.readline, "Ctrl-C stops it.\n"))
    found = dict(re.findall(r"(REST|gRPC)  (?:http://)?([\d.]+:\d+)", text))
    return types.SimpleNamespace(
        child=child, rest_address=found["REST"], grpc_address=found["gRPC"]
    )


def send(server, body):
    """What becomes of it does not matter, but it must not be an error of the server's own."""
    try:
        status, answer = ask(server, body=body)
        assert status in (200, 400, 413, 429), answer
    except urllib3.exceptions.HTTPError:
        pass  # refused before all of it was sent


def leave_unread(server, kept):
    request = message()
    request.model_spec.signature_name = "generate"
    request.inputs.clear()
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto([1], "int64"))
    request.inputs["seed"].tensor_shape.dim[0].size = 1024
    for _ in range(100):
        kept.append(call(server.grpc_address, message=request.SerializeToString(), window=0))
        kept.append(connect_to(server.rest_address, reads=False))
        kept[-1].sendall(HEAD.format(len(GENERATE)).encode() + GENERATE)


def send_message(server, content):
    with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(PREDICTION + "Predict")(content, timeout=3 * SECONDS)


@pytest.mark.slow
def test_memory_under_attack():
    strings = json.dumps({"instances": [["a" * 100_000, *["b"] * 7000]]}).encode()
    lists = b'{"instances": [' + b"[]," * 5_000_000 + b"[]]}"
    numbers = b'{"instances": [' + b"[0.123, 0.456]," * 10**6 + b"[]]}"
    shape = message()
    shape.inputs.clear()
    shape.inputs["x"].CopyFrom(tf.make_tensor_proto(1.0))
    shape.inputs["x"].tensor_shape.dim.add(size=1_500_000_000)
    server, kept = start(), []
    try:
        work = [lambda body=body: send(server, body) for body in (strings, lists, numbers) * 8]
        contents = (b"\x12\x00" * 8_000_000, b"\x12\x02\x12\x00" * 4_000_000)
        contents = (*contents, shape.SerializeToString())
        work += [lambda c=content: send_message(server, c) for content in contents * 4]
        work.append(lambda: leave_unread(server, kept))
        threads = [threading.Thread(target=each) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status_of(server.child.pid))[1])
        assert peak < MOST
        for connection in kept:
            connection.close()
        assert ask(server, "/healthz", None)[0] == 200
    finally:
        server.child.send_signal(signal.SIGTERM)
        out, err = server.child.communicate(timeout=3 * SECONDS)
    assert server.child.returncode == 0
    assert "Traceback" not in out + err
    assert len(err.splitlines()) < 20


def status_of(pid):
    with open(f"/proc/{pid}/status") as status:
        return status.read()
