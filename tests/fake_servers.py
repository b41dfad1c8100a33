"""Servers that are made to fail, over REST and gRPC, and clocks to hold clients to."""

import concurrent.futures
import contextlib
import http.server
import json
import re
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from vae_tf.serving import ServingError

REST_STATUS = {
    "UNAVAILABLE": 503,
    "RESOURCE_EXHAUSTED": 429,
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "INTERNAL": 500,
}
SLACK = 0.6  # seconds by which a busy machine may be late


class FakeHTTP(http.server.ThreadingHTTPServer):
    """Answers by `answer(method, body) -> (status, bytes, headers)`; keeps what was asked."""

    def __init__(self, answer, port=0):
        self.answer, self.asked, self.paths, self.connections = answer, [], [], 0
        super().__init__(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.server.asked.append(time.monotonic())
        self.server.paths.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, text, headers = self.server.answer(self.command, body)
        self.send_response(status)
        for name, value in ({"Content-Length": len(text)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(text)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


class FakeGrpc:
    """The same by gRPC, where `answer(inputs or None)` gives an array, states, or raises."""

    def __init__(self, answer, port=0):
        self.asked = []
        self.server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)]
        )
        services = _Services(answer, self.asked)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, self.server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, self.server)
        self.address = f"grpc://127.0.0.1:{self.server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0).wait()


class _Services:
    def __init__(self, answer, asked):
        self.answer, self.asked = answer, asked

    def _answered(self, inputs, context):
        self.asked.append(time.monotonic())
        try:
            return self.answer(inputs)
        except ServingError as error:
            context.abort(getattr(grpc.StatusCode, error.code), error.message)

    def Predict(self, request, context):  # noqa: N802
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        answer = self._answered(inputs, context)
        if isinstance(answer, predict_pb2.PredictResponse):
            return answer
        return response_of(out=tf.make_tensor_proto(answer))

    def GetModelStatus(self, request, context):  # noqa: N802
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in self._answered(None, context).items():
            response.model_version_status.add(version=version, state=state)
        return response

    GetModelMetadata = Classify = Regress = MultiInference = HandleReloadConfigRequest = None


def response_of(**tensors):
    """A `PredictResponse` of `TensorProto`s."""
    response = predict_pb2.PredictResponse()
    for name, tensor in tensors.items():
        response.outputs[name].CopyFrom(tensor)
    return response


def fake(kind, answer, port=0):
    """A server, of either kind, whose `answer(inputs or None)` gives what `FakeGrpc` takes."""
    if kind == "grpc":
        return FakeGrpc(answer, port)

    def over_http(method, body):
        try:
            out = answer(json.loads(body)["inputs"] if body else None)
        except ServingError as error:
            return REST_STATUS[error.code], json.dumps({"error": error.message}).encode(), {}
        if body:
            return 200, json.dumps({"outputs": np.asarray(out).tolist()}).encode(), {}
        state = get_model_status_pb2.ModelVersionStatus.State.Name
        states = [{"version": str(v), "state": state(s)} for v, s in out.items()]
        return 200, json.dumps({"model_version_status": states}).encode(), {}

    return FakeHTTP(over_http, port)


def echo(inputs):
    return inputs["z"]


def in_turn(*answers):
    """What fails with each code in turn, the last one again and again; None: it does not fail."""
    left = [*answers]

    def answer(inputs):
        code = left.pop(0) if len(left) > 1 else left[0]
        if code is not None:
            raise ServingError(code, f"I am {code}.")
        return echo(inputs)

    return answer


def plain(status, text, **headers):
    return lambda method, body: (status, text, headers)


@contextlib.contextmanager
def listening(talk=lambda connection: None):
    """`host:port` of a server that takes connections, and lets `talk` have them."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection = stack.enter_context(listener.accept()[0])
                    threading.Thread(target=attend, args=[connection], daemon=True).start()

        def attend(connection):
            with contextlib.suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


OK = b"HTTP/1.1 200 OK\r\n"


def dripping(head, rest):
    def talk(connection):
        connection.recv(2**16)
        connection.sendall(head)
        for byte in rest:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return talk


def fails(code, call, words="."):
    """`call` raises a `ServingError` of this code, whose message has these words."""
    with pytest.raises(ServingError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert re.search(words, caught.value.message), caught.value


@contextlib.contextmanager
def taking(least, most):
    start = time.monotonic()
    yield
    assert least <= time.monotonic() - start <= most + SLACK
