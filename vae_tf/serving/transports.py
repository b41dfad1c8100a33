"""The two protocols of TF Serving, REST and gRPC, as the client speaks them: one request each.

A transport has `predict(signature, inputs, timeout)`, `status(timeout)` and `close()`, and raises
`ServingError`.
"""

import base64
import contextlib
import json
import re
import socket
import threading
import time
import urllib.parse

import numpy as np
import urllib3

from vae_tf.errors import invalid
from vae_tf.serving.status import ServingError, code_of_http

AT_ONCE = 4  # requests of one client that are under way together


def transport_of(address):
    """The class for an address: `Rest` or `Grpc`.

    Raises:
        ValueError: it is no address.
    """
    kinds = {"http": Rest, "https": Rest, "grpc": Grpc}
    try:
        parts = urllib3.util.parse_url("" if re.search(r"\s", str(address)) else str(address))
    except urllib3.exceptions.LocationParseError:
        parts = urllib3.util.Url()
    if parts.scheme not in kinds or not parts.host or (parts.scheme == "grpc" and not parts.port):
        expected = "http://host:port, https://... or grpc://host:port"
        raise invalid("address", expected, repr(address))
    return kinds[parts.scheme]


class Rest:
    """TF Serving's REST protocol, column form."""

    def __init__(self, address, model, version, label):
        model, label = (urllib.parse.quote(name or "", safe="") for name in (model, label))
        which = f"/versions/{version}" if version else f"/labels/{label}" if label else ""
        self.url = f"{address.rstrip('/')}/v1/models/{model}{which}"
        self.pool = urllib3.PoolManager(maxsize=AT_ONCE, retries=False)
        pools = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
        self.pool.pool_classes_by_scheme = {name: _in_time(pool) for name, pool in pools.items()}

    def predict(self, signature, inputs, timeout):
        columns = {name: array.tolist() for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        answer = self._ask("POST", f"{self.url}:predict", timeout, body)
        with reading_answer(answer):
            outputs = answer["outputs"]
            if isinstance(outputs, dict):
                return {name: _from_json(column) for name, column in outputs.items()}
            return _from_json(outputs)

    def status(self, timeout):
        answer = self._ask("GET", self.url, timeout)
        with reading_answer(answer):
            return {int(each["version"]): each["state"] for each in answer["model_version_status"]}

    def close(self):
        self.pool.clear()

    def _ask(self, method, url, timeout, body=None):
        deadline = time.monotonic() + timeout
        headers = {"Content-Type": "application/json"} if body else {}
        limit, failure = urllib3.Timeout(total=timeout), None
        try:
            response = self.pool.request(
                method, url, body=body, headers=headers, timeout=limit, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            failure = error
        late = isinstance(failure, urllib3.exceptions.ReadTimeoutError)
        if late or time.monotonic() >= deadline:  # what has come by then may be a part
            raise ServingError(
                "DEADLINE_EXCEEDED", f"No answer within {timeout:.3g} s."
            ) from failure
        if failure:
            message = f"{urllib.parse.urlsplit(url).netloc} cannot be reached ({failure})."
            raise ServingError("UNAVAILABLE", message) from failure
        return _checked_answer(response.status, response.data)


def _in_time(pool):
    """A class of connections that end with their time; a socket's own starts anew with each byte."""

    class Connection(pool.ConnectionCls):
        def getresponse(self):  # urllib3 reads the body here, too
            watchdog = threading.Timer(self.timeout, _shut, [self.sock])
            watchdog.start()
            try:
                return super().getresponse()
            finally:
                watchdog.cancel()

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _shut(connection):
    with contextlib.suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)


class Grpc:
    """TF Serving's gRPC protocol. Its messages come with TensorFlow, which is imported here."""

    def __init__(self, address, model, version, label):
        import grpc
        from tensorflow_serving.apis import (
            get_model_status_pb2,
            model_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        from vae_tf.serving import tensors

        self.grpc, self.tensors = grpc, tensors
        self.spec = model_pb2.ModelSpec(name=model)
        if version is not None:
            self.spec.version.value = version
        if label is not None:
            self.spec.version_label = label
        self.request, self.status_request = (
            predict_pb2.PredictRequest,
            get_model_status_pb2.GetModelStatusRequest,
        )
        self.states = get_model_status_pb2.ModelVersionStatus.State
        self.channel = _channel(grpc, address.removeprefix("grpc://"))
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, signature, inputs, timeout):
        request = self.request(model_spec=self.spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            self.tensors.write_tensor(request.inputs[name], array)
        response = self._ask(self.predictions.Predict, request, timeout)
        read = self.tensors.read_tensor
        arrays = {name: read(tensor) for name, tensor in response.outputs.items()}
        return arrays if len(arrays) > 1 else next(iter(arrays.values()))

    def status(self, timeout):
        request = self.status_request(model_spec=self.spec)
        response = self._ask(self.models.GetModelStatus, request, timeout)
        return {s.version: self.states.Name(s.state) for s in response.model_version_status}

    def close(self):
        self.channel.close()

    def _ask(self, method, request, timeout):
        try:
            return method(request, timeout=timeout)
        except self.grpc.RpcError as error:
            code, details = error.code().name, error.details() or "No word."
            if "larger than max" in details:  # gRPC has one code for this and for an overload
                code = "INVALID_ARGUMENT"
            raise ServingError(code, details) from error


def _channel(grpc, target):
    options = {  # answers of any size, in few frames, without waiting for the window to open
        "grpc.max_receive_message_length": -1,
        "grpc.http2.max_frame_size": 2**20,
        "grpc.http2.lookahead_bytes": 2**22,
        # between attempts to connect, else up to two minutes: the client waits on its own account
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 1000,
    }
    return grpc.insecure_channel(target, options=[*options.items()])


def _checked_answer(status, text):
    """What a body says; an error carries the server's own words."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    words = answer.get("error") if isinstance(answer, dict) else None
    words = words or text[:200].decode(errors="replace") or f"HTTP status {status}, and no word."
    raise ServingError("UNKNOWN" if status == 200 else code_of_http(status), str(words))


@contextlib.contextmanager
def reading_answer(answer):
    """What is not TF Serving's answer is an error of the server's, not of its reader."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        message = f"The answer is not TF Serving's: {str(answer)[:200]}"
        raise ServingError("UNKNOWN", message) from error


def _from_json(column):
    if isinstance(column[0], dict):
        return np.array([base64.b64decode(value["b64"]) for value in column], object)
    return np.asarray(column, "float32")
