"""Small SavedModels that do what they should not, for the tests of export and serving."""

import contextlib

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from vae_tf.errors import only_from
from vae_tf.export.warmup import WARMUP_FILE

Z = tf.TensorSpec((None, 2), tf.float32, "z")


def endless(z):
    """Rounds without end, each of which is quick."""
    return tf.while_loop(
        lambda z: tf.reduce_sum(z) < 1e30, lambda z: (tf.sin(z),), [z], parallel_iterations=1
    )[0]


class Resource(tf.saved_model.experimental.TrackableResource):
    """Runs a function when the model is loaded."""

    def __init__(self, function):
        self._function = function
        super().__init__()

    def _create_resource(self):
        return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

    def _initialize(self):
        self._function()


def save(path, compute=lambda z: z, resource=None, **signatures):
    """A model whose signature `decode`, and those in `signatures`, compute something of z.

    It has a warm-up request of each, and `resource` as an attribute.
    """
    module = tf.Module()
    module.weight, module.resource = tf.Variable([[2.0, 0.0], [0.0, 2.0]]), resource

    def traced(function):
        def run(z):
            return {"probabilities": function(z) @ module.weight}

        return tf.function(run, autograph=False).get_concrete_function(Z)

    functions = {"decode": compute, "serving_default": compute} | signatures
    with quiet():
        tf.saved_model.save(module, str(path), {k: traced(f) for k, f in functions.items()})
    write_warmup(path, functions)
    return path


def write_warmup(path, names, rows=3):
    """A request of each signature, of zeros of which one is written."""
    (path / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path / WARMUP_FILE)) as writer:
        for name in names:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = name
            request.inputs["z"].CopyFrom(tf.make_tensor_proto([0.0], tf.float32))
            request.inputs["z"].tensor_shape.dim[0].size = rows
            request.inputs["z"].tensor_shape.dim.add(size=2)
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


@contextlib.contextmanager
def edited(path):
    """What saved_model.pb holds, which is written again with its changes."""
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    yield model
    file.write_bytes(model.SerializeToString())


def quiet():
    return only_from("ERROR", tf.get_logger())
