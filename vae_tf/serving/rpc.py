"""The embedded server's gRPC side: TF Serving's prediction and model services, and health."""

import contextlib
import logging

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from vae_tf.serving import codec, messages
from vae_tf.serving.servable import DEFAULT_SIGNATURE
from vae_tf.serving.status import FAILED, ServingError
from vae_tf.serving.tensors import write_tensor

log = logging.getLogger("vae_tf.serving")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; what else the service has is not implemented.

    Args:
        core: a `server.Core`.
    """

    def __init__(self, core):
        self.core = core

    def Predict(self, request, context):  # noqa: N802  its name in the protocol
        with (
            _refusing(context),
            self.core.admitted("gRPC"),
            self.core.versions.use(**_which(request)) as version,
        ):
            return _answer(request, version)

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _refusing(context):
            fields = list(request.metadata_field)
            if set(fields) != {"signature_def"}:
                message = f"Ask for the metadata_field 'signature_def'; got {fields}."
                raise ServingError("INVALID_ARGUMENT", message)
            with self.core.versions.use(**_which(request)) as version:
                spec, signatures = messages.metadata(request.model_spec.name, version)
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
            response.metadata["signature_def"].Pack(signatures)
            return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus`."""

    def __init__(self, core):
        self.core = core

    def GetModelStatus(self, request, context):  # noqa: N802
        with _refusing(context):
            return messages.status(self.core.versions.status(**_which(request)))


@contextlib.contextmanager
def _refusing(context):
    try:
        yield
    except ServingError as error:
        context.abort(grpc.StatusCode[error.code], error.message)
    except Exception:  # gRPC would send its text, which may hold a path
        log.exception("a request failed")
        context.abort(grpc.StatusCode.INTERNAL, FAILED)


def _which(request):
    if not request.HasField("model_spec"):
        raise ServingError("INVALID_ARGUMENT", "Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return {
        "name": spec.name,
        "version": spec.version.value if choice == "version" else None,
        "label": spec.version_label if choice == "version_label" else None,
    }


def _answer(request, version):
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if signature not in version.model.functions:  # the one code in which gRPC and REST differ
        message = f'Serving signature key "{signature}" not found.'
        raise ServingError("FAILED_PRECONDITION", message)
    arrays = codec.read_tensors(request.inputs, version.model, signature)
    outputs = version.model.predict(signature, arrays, tuple(request.output_filter))
    spec = messages.spec(request.model_spec.name, version, signature)
    response = predict_pb2.PredictResponse(model_spec=spec)
    for name, array in outputs.items():
        write_tensor(response.outputs[name], array)
    return response
