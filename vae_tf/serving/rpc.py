"""The embedded server's gRPC side: TF Serving's prediction and model services, and health."""

import contextlib
import functools
import logging
import threading

import grpc
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
)

from vae_tf.serving import codec, examples, messages, wire
from vae_tf.serving.servable import DEFAULT_SIGNATURE
from vae_tf.serving.status import FAILED, ServingError, invalid_argument
from vae_tf.serving.tensors import write_tensor

log = logging.getLogger("vae_tf.serving")
PREDICTION, MODEL = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
LONGEST = 2**16  # bytes of a request that is no prediction


class Services(grpc.GenericRpcHandler):
    """The methods that the server has, by their paths; all others are answered with UNIMPLEMENTED.

    To gRPC each is a stream of requests, of which the first is read: for the client that is the same, and
    the server is there before the message is, and can refuse it or end the wait for it. Messages come as
    bytes, and are parsed once it is known what they hold.

    Args:
        core: a `core.Core`.
    """

    def __init__(self, core):
        limits = core.limits
        self.core, self.going = core, threading.Event()
        self._reading = threading.BoundedSemaphore(
            max(1, limits.held_bytes // limits.request_bytes)
        )
        simple = {
            PREDICTION + "GetModelMetadata": self._metadata,
            PREDICTION + "Classify": functools.partial(self._examples, "classify"),
            PREDICTION + "Regress": functools.partial(self._examples, "regress"),
            PREDICTION + "MultiInference": self._multi_inference,
            MODEL + "GetModelStatus": self._status,
            "/grpc.health.v1.Health/Check": self._health,
        }
        calls = {path: functools.partial(self._answer, method) for path, method in simple.items()}
        calls[PREDICTION + "Predict"] = self._predict
        self._handlers = {
            path: grpc.stream_unary_rpc_method_handler(functools.partial(self._call, call))
            for path, call in calls.items()
        }

    def service(self, details):
        return self._handlers.get(details.method)

    def _call(self, answer, requests, context):
        """What the client gets: bytes, or an error. It has its time to read them."""
        context.add_callback(functools.partial(self.core.expected, context))
        with _refusing(context):
            content = answer(requests, context)
            self.core.expect(context, self.core.limits.write_seconds)
            return content

    def _read(self, requests, context):
        """The message, as bytes, of which only so many are awaited that they can be held."""
        seconds = self.core.limits.read_seconds
        if not self._reading.acquire(timeout=seconds):
            raise ServingError("DEADLINE_EXCEEDED", "The server did not come to this request.")
        self.core.expect(context, seconds)
        try:
            return next(requests)
        except (StopIteration, grpc.RpcError) as error:
            raise ServingError("CANCELLED", "The request did not arrive.") from error
        finally:
            self.core.expected(context)
            self._reading.release()

    def _predict(self, requests, context):
        if self.core.stopped.is_set():  # answered once the client knows that it must go elsewhere
            self.going.wait(1)
        place = self.core.admit("gRPC", ends=2)  # that of this thread, and that of the call
        if not context.add_callback(place.leave):
            place.leave()
        with place:
            content = self._read(requests, context)
            place.hold(len(content))
            wire.check_predict(content, self.core.limits.batch)
            request = self.core.parse(wire.parsed, predict_pb2.PredictRequest, content)
            with self.core.versions.use(**_which(request)) as version:
                return self._predicted(request, version, place)

    def _predicted(self, request, version, place):
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature not in version.model.functions:  # the one code in which gRPC and REST differ
            message = f'Serving signature key "{signature}" not found.'
            raise ServingError("FAILED_PRECONDITION", message)
        arrays = codec.read_tensors(request.inputs, version.model, signature, place.hold)
        response = predict_pb2.PredictResponse(
            model_spec=messages.spec(request.model_spec.name, version, signature)
        )

        def write(outputs):
            for name, array in outputs.items():
                write_tensor(response.outputs[name], array)
            return response.SerializeToString()

        wanted, many = tuple(request.output_filter), codec.PROTO_BYTES
        return self.core.predict(place, version.model, signature, arrays, wanted, write, many)

    # The others: little work, done however many predictions there are.

    def _answer(self, method, requests, context):
        return method(self._read(requests, context)).SerializeToString()

    def _metadata(self, content):
        request = _small(get_model_metadata_pb2.GetModelMetadataRequest, content)
        asked = list(request.metadata_field)
        if set(asked) != {"signature_def"}:
            message = f"Ask for the metadata_field 'signature_def'; got {asked}."
            raise invalid_argument(message)
        with self.core.versions.use(**_which(request)) as version:
            spec, signatures = messages.metadata(request.model_spec.name, version)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _status(self, content):
        request = _small(get_model_status_pb2.GetModelStatusRequest, content)
        return messages.status(self.core.versions.status(**_which(request)))

    def _examples(self, verb, content):
        """Its examples may be many; they are not even parsed."""
        spec = b"".join(part for number, part in wire.fields(content) if number == 1)
        request = predict_pb2.PredictRequest(model_spec=_small(model_pb2.ModelSpec, spec))
        with self.core.versions.use(**_which(request)) as version:
            name = request.model_spec.signature_name
            raise examples.refusal(verb, version.model.signature_defs, name)

    def _multi_inference(self, content):
        parts = [part for number, part in wire.fields(content) if number == 1]
        tasks = [_small(inference_pb2.InferenceTask, part) for part in parts]
        first = tasks[0] if tasks else inference_pb2.InferenceTask(model_spec={})
        with self.core.versions.use(**_which(first)) as version:
            raise examples.tasks_refusal(tasks, version.model.signature_defs)

    def _health(self, content):
        if _small(health_pb2.HealthCheckRequest, content).service:
            raise ServingError("NOT_FOUND", "The server's health is that of the service ''.")
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if self.core.ready else states.NOT_SERVING)


@contextlib.contextmanager
def _refusing(context):
    try:
        yield
    except ServingError as error:
        context.abort(grpc.StatusCode[error.code], error.message)
    except Exception:  # gRPC would send its text, which may hold a path
        log.exception("a request failed")
        context.abort(grpc.StatusCode.INTERNAL, FAILED)


def _small(kind, content):
    if len(content) > LONGEST:
        message = f"The request is longer than {LONGEST} bytes."
        raise invalid_argument(message)
    return wire.parsed(kind, content)


def _which(request):
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return {
        "name": spec.name,
        "version": spec.version.value if choice == "version" else None,
        "label": spec.version_label if choice == "version_label" else None,
    }
