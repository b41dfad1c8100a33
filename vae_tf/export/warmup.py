"""Warm-up requests: TF Serving runs them as it loads a version, so that no client's request is the first."""

import math
import pathlib

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"  # in the directory of a version
WARMUP_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)  # the sizes that deploy/batching.config allows
_MOST_VALUES = 2**24  # of an input


def write_warmup(path, signatures):
    """Write a request of zeros for every signature and batch size.

    Args:
        path: the directory of the version.
        signatures: `tf.function`s with an `input_signature`, by name.
    """
    path = pathlib.Path(path) / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, signature in signatures.items():
            for size in WARMUP_BATCH_SIZES:
                log = prediction_log_pb2.PredictLog(request=_zeros(name, signature, size))
                writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def warmup_requests(path):
    """The recorded `PredictRequest`s of a version; none where it has no warm-up file.

    Args:
        path: the directory of the version.

    Raises:
        tf.errors.OpError, DecodeError: the file is damaged.
    """
    path = pathlib.Path(path) / WARMUP_FILE
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator() if path.is_file() else ()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]


def inputs_of(request):
    """The arrays of a recorded request by name; a shape is looked at before it takes memory.

    Raises:
        ValueError, TypeError: an input is too large, or its values are not those of its shape and type.
    """
    for name, tensor in request.inputs.items():
        sizes = [dim.size for dim in tensor.tensor_shape.dim]
        if min(sizes, default=0) < 0 or math.prod(sizes) > _MOST_VALUES:
            raise ValueError(f"the recorded input {name!r} has the shape {tuple(sizes)}")
    return {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}


def _zeros(name, signature, size):
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = name
    for spec in signature.input_signature:
        zeros = tf.make_tensor_proto(0, spec.dtype, (size, *spec.shape[1:]))
        request.inputs[spec.name].CopyFrom(zeros)
    return request
