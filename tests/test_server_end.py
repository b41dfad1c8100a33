"""The end of the embedded server: what was begun is answered, what comes is refused."""

# ruff: noqa: F811  fixtures are imported by their names

import contextlib
import re
import signal
import subprocess
import sys
import time
import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import (  # noqa: F401
    BODY,
    HEAD,
    SECONDS,
    Gate,
    ask,
    code_of,
    connect,
    exports,
    images_of,
    message,
    models,
    own,
    read_answers,
    samples,
    serve,
    server,
    stub_of,
    threads,
    wait_for,
)

from vae_tf.serving.server import Limits


def test_stop_finishes_what_has_begun_and_it_can_start_again(models, exports, threads):
    server = serve(models)
    server.stop()  # no harm
    for _ in range(2):
        server.start()
        assert ask(server, "/readyz", None)[0] == 200
        gate = Gate(server)
        with stub_of(server) as stub:
            held = threads.submit(images_of, server)
            by_grpc = stub.Predict.future(message(), timeout=SECONDS)
            gate.wait(2)
            ending = threads.submit(server.stop)
            wait_for(server.core.stopped.is_set)  # what comes before that would be held too
            assert ask(server)[0] == 503  # while the others are still running
            assert ask(server, "/readyz", None)[0] == 503
            wait_for(lambda: code_of(server, message()) == "UNAVAILABLE")
            gate.opened.set()
            np.testing.assert_allclose(held.result(), exports[0][1], atol=1e-6)
            answer = tf.make_ndarray(by_grpc.result().outputs["probabilities"])
            np.testing.assert_allclose(answer, exports[0][1], atol=1e-6)
        ending.result(SECONDS)
        server.stop()  # no harm


REST_CLIENTS = """
import sys, threading, urllib3
url, body, found = sys.argv[1], sys.argv[2].encode(), set()

def ask():
    with urllib3.PoolManager(retries=False) as pool:
        code = 200
        while code in (200, 503):
            try:
                code = pool.request("POST", url, body=body).status
            except urllib3.exceptions.NewConnectionError:
                return
            except urllib3.exceptions.HTTPError as error:
                code = repr(error)
            if not found:
                print("going", flush=True)
            found.add(code)

threads = [threading.Thread(target=ask) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
print(sorted(found, key=str), flush=True)
"""


def test_clients_in_full_flow_are_answered_or_told_to_retry(models, threads):
    """By either protocol, until nobody listens any more: no reset, no call that is cancelled.

    The clients of REST are another process. In this one they would wait for Python's lock together with
    the server, and one could come between its last look for who waits and the end of listening.
    """
    for _ in range(2):
        server = serve(models).start()

        def by_grpc(server=server):
            found = []
            with stub_of(server) as stub:
                while "UNAVAILABLE" not in found:
                    try:
                        stub.Predict(message(), timeout=SECONDS)
                        found.append("OK")
                    except grpc.RpcError as error:
                        found.append(error.code().name)
            return found

        url = f"http://{server.rest_address}/v1/models/vae:predict"
        arguments = [sys.executable, "-c", REST_CLIENTS, url, BODY]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as by_rest:
            assert by_rest.stdout.readline() == "going\n"
            clients = [threads.submit(by_grpc) for _ in range(4)]
            time.sleep(0.1)
            server.stop()
            said = [line for line in by_rest.stdout if line != "going\n"]  # each thread may say it
        assert said == ["[200, 503]\n"]
        assert {code for client in clients for code in client.result(SECONDS)} == {
            "OK",
            "UNAVAILABLE",
        }
        assert server.unanswered == 0


def test_what_does_not_end_in_time_is_counted(models, threads):
    server = serve(models, limits=Limits(drain_seconds=0.2)).start()
    gate = Gate(server)
    with stub_of(server) as stub:
        held, by_grpc = threads.submit(ask, server), stub.Predict.future(message())
        gate.wait(2)
        ending = threads.submit(server.stop)
        assert held.result(SECONDS)[0] == 503
        with pytest.raises(grpc.RpcError):
            by_grpc.result(SECONDS)
        gate.opened.set()  # what runs cannot be ended
        ending.result(SECONDS)
    assert server.unanswered == 2


def test_a_client_that_watches_its_health_does_not_hold_the_server(own):
    with stub_of(own, health_pb2_grpc.HealthStub) as stub:
        watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        with contextlib.suppress(grpc.RpcError):  # it may be told that there is no such thing
            next(watched)
        start = time.monotonic()
        own.__exit__()
        assert time.monotonic() - start < 5


@pytest.mark.slow
def test_signals_end_the_command_after_its_requests(models, exports, threads):
    """A request of which half has come when the signal does."""
    words = ["serve", "--engine", "embedded", "--rest-port", "0", "--grpc-port", "0"]
    command = [sys.executable, "-u", "-m", "vae_tf", *words, str(models)]

    def life(number):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as child:
            try:
                answer = end(child, number)
                return answer, child.communicate(timeout=SECONDS), child.returncode
            finally:
                child.kill()

    for answer, (out, err), code in threads.map(life, (signal.SIGTERM, signal.SIGINT)):
        np.testing.assert_allclose(answer["predictions"], exports[0][1], atol=1e-6)
        assert code == 0
        assert "Traceback" not in out + err
        assert "every request that had been taken on was answered." in out


def end(child, number):
    """Send the command half a request, the signal and the other half; gives the answer."""
    lines = []
    while not lines or "gRPC" not in lines[-1]:
        lines.append(child.stdout.readline())
        assert lines[-1], child.stderr.read()
    [address] = re.findall(r"REST +http://([\d.]+:\d+)", "".join(lines))
    server = types.SimpleNamespace(rest_address=address)
    with connect(server) as connection:
        connection.sendall(HEAD.format(len(BODY)).encode() + BODY[:20])
        wait_for(lambda: samples(server)[0]["requests_admitted",] == 1)
        child.send_signal(number)
        while "Stopping" not in child.stderr.readline():
            assert child.poll() is None
        time.sleep(0.2)  # in which a server that does not wait would end
        connection.sendall(BODY[20:])
        [(status, answer)] = read_answers(connection)
    assert status == 200, answer
    return answer
