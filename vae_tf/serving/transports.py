"""The two protocols of TF Serving, REST and gRPC, as the client speaks them: one request each.

A transport has `predict(signature, inputs, timeout)`, which gives arrays by name with as many rows as
the inputs, `status(timeout)`, `close()` and `address`, and raises `ServingError`. It reads no more than
`most` bytes of an answer.
"""

import contextlib
import functools
import json
import re
import socket
import threading
import time
import urllib.parse

import urllib3

from vae_tf.errors import invalid
from vae_tf.serving import answers
from vae_tf.serving.batches import AT_ONCE
from vae_tf.serving.status import ServingError, code_of_http


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


def shown(address):
    """An address as messages have it, without a user's name and password."""
    parts = urllib3.util.parse_url(address)
    return f"{parts.scheme}://{parts.netloc}"


class Rest:
    """TF Serving's REST protocol, column form."""

    def __init__(self, address, model, version, label, most):
        model, label = (urllib.parse.quote(name or "", safe="") for name in (model, label))
        which = f"/versions/{version}" if version else f"/labels/{label}" if label else ""
        self.url = f"{address.rstrip('/')}/v1/models/{model}{which}"
        self.address, self.most = shown(address), most
        self.reading = threading.Lock()  # lists of numbers are large: one answer's at a time
        self.pool = urllib3.PoolManager(maxsize=AT_ONCE, retries=False)
        pools = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
        self.pool.pool_classes_by_scheme = {name: _in_time(pool) for name, pool in pools.items()}

    def predict(self, signature, inputs, timeout):
        rows = len(next(iter(inputs.values())))
        columns = {name: array.tolist() for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        with answers.reading(self.address):
            text = self._ask("POST", f"{self.url}:predict", timeout, body)
            with self.reading:
                return answers.from_json(answers.parsed(text), rows)

    def status(self, timeout):
        with answers.reading(self.address):
            answer = answers.parsed(self._ask("GET", self.url, timeout))
            states = answers.field(answer, "model_version_status")
            field = answers.field
            return answers.from_states((field(s, "version"), field(s, "state")) for s in states)

    def close(self):
        self.pool.clear()

    def _ask(self, method, url, timeout, body=None):
        """The body of an answer whose status is 200."""
        deadline, failure = time.monotonic() + timeout, None
        try:
            status, text = self._exchange(method, url, timeout, body)
        except urllib3.exceptions.HTTPError as error:
            failure = error
        late = isinstance(failure, urllib3.exceptions.ReadTimeoutError)
        if late or time.monotonic() >= deadline:  # what has come by then may be a part
            message = f"No answer within {timeout:.3g} s."
            raise ServingError("DEADLINE_EXCEEDED", message) from failure
        if failure:
            message = f"{self.address} cannot be reached ({failure})."
            raise ServingError("UNAVAILABLE", message) from failure
        if status != 200:
            raise answers.refusal(code_of_http(status), _words(status, text))
        return text

    def _exchange(self, method, url, timeout, body):
        headers = {"Content-Type": "application/json"} if body else {}
        response = self.pool.request(
            method,
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            redirect=False,
            preload_content=False,
        )
        try:
            encoding = response.headers.get("Content-Encoding", "").lower()
            read = functools.partial(response.read, decode_content=False)
            text = answers.read_body(read, encoding, self.most)
        except BaseException:
            response.close()  # with what is left to read
            raise
        finally:
            response.watchdog.cancel()
        return response.status, text


def _words(status, text):
    """The server's own words on what it refuses."""
    try:
        words = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        words = text[:200].decode(errors="replace")
    return str(words) or f"HTTP status {status}, and no word."


def _in_time(pool):
    """A class of connections that end with their time; a socket's own starts anew with each byte."""

    class Connection(pool.ConnectionCls):
        def getresponse(self):
            watchdog = threading.Timer(self.timeout, _shut, [self.sock])
            watchdog.start()
            try:
                response = super().getresponse()
            except BaseException:
                watchdog.cancel()
                raise
            response.watchdog = watchdog  # the body is still to come
            return response

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _shut(connection):
    with contextlib.suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)


class Grpc:
    """TF Serving's gRPC protocol. Its messages come with TensorFlow, which is imported here."""

    def __init__(self, address, model, version, label, most):
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
        self.address, self.most = shown(address), most
        self.channel = _channel(grpc, address.removeprefix("grpc://"), most)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, signature, inputs, timeout):
        request = self.request(model_spec=self.spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            self.tensors.write_tensor(request.inputs[name], array)
        response = self._ask(self.predictions.Predict, request, timeout)
        rows, read = len(next(iter(inputs.values()))), self.tensors.read_tensor
        with answers.reading(self.address):
            return answers.from_tensors(response.outputs, read, rows, self.most)

    def status(self, timeout):
        request = self.status_request(model_spec=self.spec)
        response = self._ask(self.models.GetModelStatus, request, timeout)
        states, name = response.model_version_status, self.states.Name
        with answers.reading(self.address):
            return answers.from_states((each.version, name(each.state)) for each in states)

    def close(self):
        self.channel.close()

    def _ask(self, method, request, timeout):
        try:
            return method(request, timeout=timeout)
        except self.grpc.RpcError as error:
            code, details = error.code().name, error.details() or "No word."
            if "CLIENT: Received message larger" in details:
                with answers.reading(self.address):
                    raise answers.too_long(self.most) from error
            raise answers.refusal(code, details) from error


def _channel(grpc, target, most):
    options = {
        "grpc.max_receive_message_length": most,
        "grpc.compression_enabled_algorithms_bitset": 1,  # none: what is compressed has no limit
        # in few frames, without waiting for the window to open
        "grpc.http2.max_frame_size": 2**20,
        "grpc.http2.lookahead_bytes": 2**22,
        # between attempts to connect, else up to two minutes: the client waits on its own account
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 1000,
    }
    return grpc.insecure_channel(target, options=[*options.items()])
