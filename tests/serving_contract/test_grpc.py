"""The gRPC protocol: predictions, metadata, status, and the codes of what is refused."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import check_message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

ATOL = 1e-5  # float32 on another machine, in another batch
DEADLINE = 60
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNMET = grpc.StatusCode.FAILED_PRECONDITION
ROWS = np.full((2, 10), 0.5, "float32")


def fill(spec, version=None, label=None, **fields):
    """A `ModelSpec`, filled."""
    for key, value in fields.items():
        setattr(spec, key, value)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label


def request(inputs, outputs=(), name="vae", signature="", **which):
    """A `PredictRequest` of arrays, or of messages as they are."""
    message = predict_pb2.PredictRequest(output_filter=outputs)
    fill(message.model_spec, name=name, signature_name=signature, **which)
    for key, value in inputs.items():
        if not isinstance(value, tf.compat.v1.make_tensor_proto(0).__class__):
            value = tf.make_tensor_proto(value)
        message.inputs[key].CopyFrom(value)
    return message


def tensor(dtype, shape, **values):
    """A `TensorProto`, whatever it says."""
    message = tf.make_tensor_proto(0.0)
    message.Clear()
    message.dtype = dtype
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    for key, value in values.items():
        if key == "tensor_content":
            message.tensor_content = value
        else:
            getattr(message, key).extend(value)
    return message


def refused(code, call, message):
    """The call fails with that code and a message without a path."""
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=DEADLINE)
    assert caught.value.code() == code, caught.value.details()
    check_message(caught.value.details())
    return caught.value.details()


@pytest.mark.parametrize("which", [{}, {"version": 1}, {"label": "stable"}, {"label": "canary"}])
@pytest.mark.parametrize("signature", ["", "serving_default", "decode"])
def test_predict(server, prediction, z, decoded, signature, which):
    message = request({"z": z}, name=server.name, signature=signature, **which)
    response = prediction.Predict(message, timeout=DEADLINE)
    assert list(response.outputs) == ["probabilities"]
    found = tf.make_ndarray(response.outputs["probabilities"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, decoded, atol=ATOL)
    spec = response.model_spec
    assert (spec.name, spec.version.value) == (server.name, 1)
    assert spec.signature_name == (signature or "serving_default")


@pytest.mark.parametrize("wanted", [[], ["z"], ["images"], ["z", "images"]])
def test_outputs_are_those_asked_for(server, prediction, signatures, wanted):
    seeds = np.array([-(2**63), 0, 2**63 - 1])
    message = request({"seed": seeds}, wanted, server.name, "generate")
    response = prediction.Predict(message, timeout=DEADLINE)
    assert set(response.outputs) == set(wanted or ["z", "images"])
    expected = signatures["generate"](seed=tf.constant(seeds))
    for name, found in response.outputs.items():
        np.testing.assert_allclose(tf.make_ndarray(found), expected[name], atol=ATOL)


def test_bytes(server, prediction, signatures):
    seeds = np.array([3, 4])
    message = request({"seed": seeds}, name=server.name, signature="generate_png")
    found = prediction.Predict(message, timeout=DEADLINE).outputs["png_bytes"]
    assert found.dtype == tf.string.as_datatype_enum
    images = signatures["generate"](seed=tf.constant(seeds))["images"]
    for png, image in zip(tf.make_ndarray(found), images.numpy(), strict=True):
        pixels = tf.io.decode_png(png).numpy()
        assert pixels.shape == (28, 28, 1)
        np.testing.assert_allclose(pixels, 255 * image, atol=0.51)


def test_both_encodings_and_a_repeated_value(server, prediction, z, decoded, signatures):
    """A field with one value stands for as many as the shape says (TensorFlow's Tensor::FromProto)."""
    float32 = tf.float32.as_datatype_enum
    for values in ({"tensor_content": z.tobytes()}, {"float_val": z.ravel().tolist()}):
        message = request({"z": tensor(float32, z.shape, **values)}, name=server.name)
        found = prediction.Predict(message, timeout=DEADLINE).outputs["probabilities"]
        np.testing.assert_allclose(tf.make_ndarray(found), decoded, atol=ATOL)
    message = request({"z": tensor(float32, (2, 10), float_val=[0.5])}, name=server.name)
    found = prediction.Predict(message, timeout=DEADLINE).outputs["probabilities"]
    expected = signatures["decode"](z=tf.constant(ROWS))["probabilities"]
    np.testing.assert_allclose(tf.make_ndarray(found), expected, atol=ATOL)
    int64 = tf.int64.as_datatype_enum
    for values in ({"tensor_content": np.array([7]).tobytes()}, {"int64_val": [7]}):
        message = request({"seed": tensor(int64, (1,), **values)}, ["z"], server.name, "generate")
        found = prediction.Predict(message, timeout=DEADLINE).outputs["z"]
        expected = signatures["generate"](seed=tf.constant([7], tf.int64))["z"]
        np.testing.assert_allclose(tf.make_ndarray(found), expected, atol=ATOL)


FLOAT, LONG = tf.float32.as_datatype_enum, tf.int64.as_datatype_enum
BAD_INPUTS = {
    "none": {},
    "another name": {"x": ROWS},
    "one too many": {"z": ROWS, "x": ROWS},
    "integers": {"z": ROWS.astype("int64")},
    "doubles": {"z": ROWS.astype("float64")},
    "strings": {"z": np.full((2, 10), b"0.5", object)},
    "too few columns": {"z": ROWS[:, :9]},
    "too many columns": {"z": np.ones((2, 11), "float32")},
    "no columns": {"z": ROWS[:, :0]},
    "a scalar": {"z": np.float32(1)},
    "rank too low": {"z": ROWS[0]},
    "rank too high": {"z": ROWS[None]},
    "bytes that are too few": {"z": tensor(FLOAT, (2, 10), tensor_content=b"\0" * 79)},
    "bytes that are too many": {"z": tensor(FLOAT, (2, 10), tensor_content=b"\0" * 84)},
    "a negative size": {"z": tensor(FLOAT, (-1, 10), float_val=[0.5])},
    "a negative size, with bytes": {"z": tensor(FLOAT, (-1, 10), tensor_content=b"\0" * 40)},
    "an unknown type": {"z": tensor(0, (2, 10), float_val=[0.5])},
    "nothing": {"z": tensor(0, ())},
    "values of another type": {"z": tensor(LONG, (2, 10), float_val=[0.5] * 20)},
}


@pytest.mark.parametrize("inputs", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_a_bad_input_is_refused(server, prediction, inputs):
    refused(INVALID, prediction.Predict, request(inputs, name=server.name))


@pytest.mark.parametrize(
    "seed", [np.array([1.0], "float32"), np.array([1], "int32"), np.array([[1]]), np.int64(1)]
)
def test_a_bad_seed_is_refused(server, prediction, seed):
    message = request({"seed": seed}, name=server.name, signature="generate")
    refused(INVALID, prediction.Predict, message)


@pytest.mark.parametrize(
    ("code", "which"),
    [
        (MISSING, {"name": "nope"}),
        (MISSING, {"version": 99}),
        (MISSING, {"version": -1}),
        (MISSING, {"name": "nope", "version": 1}),
        (INVALID, {"label": "nope"}),
        (INVALID, {"name": ""}),
        (UNMET, {"signature": "nope"}),
    ],
)
def test_an_unknown_model_version_label_or_signature(server, prediction, code, which):
    message = request({"z": ROWS}, **{"name": server.name, **which})
    refused(code, prediction.Predict, message)
    if "signature" not in which:
        question = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        question.model_spec.CopyFrom(message.model_spec)
        refused(code, prediction.GetModelMetadata, question)


def test_a_request_without_a_model(prediction, model_service):
    refused(INVALID, prediction.Predict, predict_pb2.PredictRequest())
    question = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    refused(INVALID, prediction.GetModelMetadata, question)
    question = get_model_status_pb2.GetModelStatusRequest()
    refused(INVALID, model_service.GetModelStatus, question)


@pytest.mark.parametrize("wanted", [["nope"], ["z", "z"], ["z", "nope"]])
def test_outputs_that_are_not_there(server, prediction, wanted):
    message = request({"seed": np.array([1])}, wanted, server.name, "generate")
    refused(INVALID, prediction.Predict, message)


@pytest.mark.parametrize("which", [{}, {"version": 1}, {"label": "canary"}])
def test_metadata(server, prediction, signatures, which):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    fill(message.model_spec, name=server.name, **which)
    response = prediction.GetModelMetadata(message, timeout=DEADLINE)
    assert (response.model_spec.name, response.model_spec.version.value) == (server.name, 1)
    unpacked = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(unpacked)
    found = dict(unpacked.signature_def)
    found.pop("__saved_model_init_op", None)
    assert found.keys() == signatures.keys()
    for name, function in signatures.items():
        for tensors, specs in (
            (found[name].inputs, function.structured_input_signature[1]),
            (found[name].outputs, function.structured_outputs),
        ):
            assert tensors.keys() == specs.keys()
            for key, spec in specs.items():
                assert tensors[key].dtype == spec.dtype.as_datatype_enum
                assert tf.TensorShape(tensors[key].tensor_shape).as_list() == spec.shape.as_list()


@pytest.mark.parametrize("fields", [[], ["nope"], ["signature_def", "nope"]])
def test_metadata_that_is_not_there(server, prediction, fields):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    fill(message.model_spec, name=server.name)
    refused(INVALID, prediction.GetModelMetadata, message)


@pytest.mark.parametrize("which", [{}, {"version": 1}, {"label": "stable"}])
def test_status(server, model_service, which):
    message = get_model_status_pb2.GetModelStatusRequest()
    fill(message.model_spec, name=server.name, **which)
    [found] = model_service.GetModelStatus(message, timeout=DEADLINE).model_version_status
    assert (found.version, found.State.Name(found.state)) == (1, "AVAILABLE")
    assert (found.status.error_code, found.status.error_message) == (0, "")


@pytest.mark.parametrize("which", [{"name": "nope"}, {"version": 99}, {"name": ""}])
def test_the_status_of_what_is_not_there(server, model_service, which):
    message = get_model_status_pb2.GetModelStatusRequest()
    fill(message.model_spec, **{"name": server.name, **which})
    refused(MISSING, model_service.GetModelStatus, message)


def examples(kind, **spec):
    """A request of one tf.Example for a model that has no signature for it."""
    message = kind(input={"example_list": {"examples": [{}]}})
    fill(message.model_spec, **spec)
    return message


@pytest.mark.parametrize(
    ("method", "kind", "noun"),
    [
        ("Classify", classification_pb2.ClassificationRequest, "classification"),
        ("Regress", regression_pb2.RegressionRequest, "regression"),
    ],
)
def test_examples_are_refused(server, prediction, method, kind, noun):
    call = getattr(prediction, method)
    for signature in ("", "decode"):
        message = examples(kind, name=server.name, signature_name=signature)
        assert f"No {noun} inputs found in SignatureDef" in refused(INVALID, call, message)
    two = examples(kind, name=server.name, signature_name="nope")
    words = "No signature was found with the name: nope"
    assert words in refused(INVALID, call, two)
    refused(MISSING, call, examples(kind, name="nope"))
    refused(INVALID, call, kind())


def test_one_output_is_expected_of_a_regression(server, prediction):
    message = examples(
        regression_pb2.RegressionRequest, name=server.name, signature_name="generate"
    )
    assert "Expected one output Tensor." in refused(INVALID, prediction.Regress, message)


@pytest.mark.parametrize(
    ("code", "method_name", "signature", "words"),
    [
        (INVALID, "tensorflow/serving/classify", "", "No classification inputs found"),
        (INVALID, "tensorflow/serving/regress", "decode", "No regression inputs found"),
        (INVALID, "tensorflow/serving/regress", "nope", "not found in model graph: nope"),
        (grpc.StatusCode.UNIMPLEMENTED, "x", "", "Unsupported signature method_name: x"),
    ],
)
def test_multi_inference_is_refused(server, prediction, code, method_name, signature, words):
    message = inference_pb2.MultiInferenceRequest(input={"example_list": {"examples": [{}]}})
    task = message.tasks.add(method_name=method_name)
    fill(task.model_spec, name=server.name, signature_name=signature)
    assert words in refused(code, prediction.MultiInference, message)
    task.model_spec.name = "nope"
    refused(MISSING, prediction.MultiInference, message)
    refused(INVALID, prediction.MultiInference, inference_pb2.MultiInferenceRequest())
