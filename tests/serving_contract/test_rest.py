"""The REST protocol: status, metadata, predictions in both forms, and what is refused and how."""

import base64
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

ATOL = 1e-5  # float32 on another machine, in another batch
AVAILABLE = {
    "version": "1",
    "state": "AVAILABLE",
    "status": {"error_code": "OK", "error_message": ""},
}
ROW = [0.5] * 10
IMAGE = ("DT_FLOAT", ["-1", "28", "28", "1"])
CODE = ("DT_FLOAT", ["-1", "10"])
SEED = {"seed": ("DT_INT64", ["-1"])}
SIGNATURES = {
    "serving_default": ({"z": CODE}, {"probabilities": IMAGE}),
    "decode": ({"z": CODE}, {"probabilities": IMAGE}),
    "generate": (SEED, {"images": IMAGE, "z": CODE}),
    "generate_png": (SEED, {"png_bytes": ("DT_STRING", ["-1"])}),
}


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
def test_status(server, where):
    status, answer, _ = server.ask("GET", f"{{}}{where}")
    assert status == 200
    assert answer == {"model_version_status": [AVAILABLE]}


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/canary"])
def test_metadata(server, where):
    status, answer, _ = server.ask("GET", f"{{}}{where}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": server.name, "signature_name": "", "version": "1"}
    assert list(answer["metadata"]) == ["signature_def"]
    found = answer["metadata"]["signature_def"]["signature_def"]
    assert found.keys() - {"__saved_model_init_op"} == SIGNATURES.keys()
    for name, (inputs, outputs) in SIGNATURES.items():
        assert found[name]["method_name"] == "tensorflow/serving/predict"
        for expected, tensors in (
            (inputs, found[name]["inputs"]),
            (outputs, found[name]["outputs"]),
        ):
            assert tensors.keys() == expected.keys()
            for key, (dtype, sizes) in expected.items():
                assert tensors[key]["dtype"] == dtype
                assert tensors[key]["tensor_shape"]["unknown_rank"] is False
                dims = [{"size": size, "name": ""} for size in sizes]
                assert tensors[key]["tensor_shape"]["dim"] == dims


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
@pytest.mark.parametrize(
    "named", [{}, {"signature_name": "decode"}, {"signature_name": "serving_default"}, {"signature_name": ""}]
)  # fmt: skip
def test_one_input_and_one_output(server, z, decoded, named, where):
    rows, columns = z.tolist(), {"z": z.tolist()}
    for body in ({"instances": rows}, {"instances": [{"z": row} for row in rows]}):
        answer = server.predict({**named, **body}, where)
        assert list(answer) == ["predictions"]
        np.testing.assert_allclose(answer["predictions"], decoded, atol=ATOL)
    for body in ({"inputs": rows}, {"inputs": columns}):
        answer = server.predict({**named, **body}, where)
        assert list(answer) == ["outputs"]
        np.testing.assert_allclose(answer["outputs"], decoded, atol=ATOL)


def test_one_input_and_two_outputs(server, signatures):
    seeds = [3, -1, 2**40]
    expected = signatures["generate"](seed=tf.constant(seeds, tf.int64))
    for instances in (seeds, [{"seed": seed} for seed in seeds]):
        body = {"signature_name": "generate", "instances": instances}
        rows = server.predict(body)["predictions"]
        assert [set(row) for row in rows] == [{"images", "z"}] * 3
        for name in ("images", "z"):
            np.testing.assert_allclose([row[name] for row in rows], expected[name], atol=ATOL)
    for inputs in (seeds, {"seed": seeds}):
        outputs = server.predict({"signature_name": "generate", "inputs": inputs})["outputs"]
        assert set(outputs) == {"images", "z"}
        for name in outputs:
            np.testing.assert_allclose(outputs[name], expected[name], atol=ATOL)


@pytest.mark.parametrize(
    ("form", "answered"), [("instances", "predictions"), ("inputs", "outputs")]
)
def test_bytes_are_base64(server, signatures, form, answered):
    answer = server.predict({"signature_name": "generate_png", form: [0, 7]})[answered]
    images = signatures["generate"](seed=tf.constant([0, 7], tf.int64))["images"]
    assert [list(cell) for cell in answer] == [["b64"]] * 2
    for cell, image in zip(answer, images.numpy(), strict=True):
        png = Image.open(io.BytesIO(base64.b64decode(cell["b64"], validate=True)))
        assert (png.format, png.size, png.mode) == ("PNG", (28, 28), "L")
        np.testing.assert_allclose(np.asarray(png), 255 * image[..., 0], atol=0.51)


def test_seeds_are_exact_at_the_extremes(server, signatures):
    """As a double each would be its neighbour."""
    seeds = [-(2**63), -(2**63) + 1, 2**63 - 2, 2**63 - 1]
    rows = server.predict({"signature_name": "generate", "instances": seeds})["predictions"]
    found = np.array([row["z"] for row in rows])
    expected = signatures["generate"](seed=tf.constant(seeds, tf.int64))["z"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(np.unique(found.round(3), axis=0)) == 4


def test_a_row_depends_on_itself_alone(server):
    def generate(seeds):
        rows = server.predict({"signature_name": "generate", "instances": seeds})["predictions"]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    alone, many = generate([5]), generate([*range(10, 40), 5, 5, *range(32)])  # 64, the most
    assert len(many["z"]) == 64
    for name, array in alone.items():
        for row in many[name][30:32]:
            np.testing.assert_allclose(row, array[0], atol=1e-6)
    assert not np.allclose(many["z"][0], alone["z"][0], atol=0.1)


def test_numbers_as_json_has_them(server, signatures):
    """Integers where floats are wanted, exponents, a minus before zero; a body in chunks."""
    text = b'{"instances": [[1, -0.0, 1e-3, 2E0, 0, -1, 0.5, 1e-50, -3, 4]]}'
    row = np.array(json.loads(text)["instances"], "float32")
    expected = signatures["decode"](z=tf.constant(row))["probabilities"]
    status, answer, _ = server.ask("POST", "{}:predict", text)
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], expected, atol=ATOL)
    parts = [text[:20], text[20:]]
    chunked = server.pool.request(
        "POST", f"http://{server.rest_address}/v1/models/{server.name}:predict", body=iter(parts)
    )
    assert json.loads(chunked.data) == answer


BAD_BODIES = {
    "no JSON": b"not json",
    "empty": b"",
    "cut off": b'{"instances": [[0.5',
    "followed by more": b'{"instances": [[' + b"0," * 9 + b"0]]} {}",
    "a trailing comma": b'{"instances": [[' + b"0," * 10 + b"]]}",
    "a list": [[ROW]],
    "a number": b"5",
    "no instances, no inputs": {},
    "other keys": {"examples": [ROW]},
    "instances and inputs": {"instances": [ROW], "inputs": [ROW]},
    "empty instances": {"instances": []},
    "instances an object": {"instances": {"z": [ROW]}},
    "instances a string": {"instances": "z"},
    "instances null": {"instances": None},
    "inputs null": {"inputs": None},
    "inputs empty": {"inputs": {}},
    "inputs a number": {"inputs": 5},
    "inputs a string": {"inputs": "z"},
    "signature a number": {"signature_name": 100, "instances": [ROW]},
    "signature null": {"signature_name": None, "instances": [ROW]},
    "signature unknown": {"signature_name": "nope", "instances": [ROW]},
    "unknown input": {"inputs": {"x": [ROW]}},
    "unknown input of a row": {"instances": [{"x": ROW}]},
    "one input too many in a row": {"instances": [{"z": ROW, "x": 1}]},
    "a row without its input": {"instances": [{"z": ROW}, {}]},
    "rows of two kinds": {"instances": [{"z": ROW}, ROW]},
    "rows of two kinds, the other way": {"instances": [ROW, {"z": ROW}]},
    "ragged rows": {"instances": [ROW, ROW[:9]]},
    "ragged columns": {"inputs": {"z": [ROW, ROW[:9]]}},
    "ragged in depth": {"instances": [ROW, [[0.5]] * 10]},
    "a number among lists": {"instances": [ROW, 1]},
    "too few columns": {"instances": [ROW[:9]]},
    "too many columns": {"instances": [[*ROW, 0.5]]},
    "no columns": {"instances": [[]]},
    "rank too low": {"instances": ROW},
    "rank too high": {"instances": [[ROW]]},
    "a string": {"instances": [["0.5", *ROW[1:]]]},
    "a boolean": {"instances": [[True, *ROW[1:]]]},
    "all booleans": {"instances": [[True] * 10]},
    "null": {"instances": [[None, *ROW[1:]]]},
    "an object for a number": {"instances": [[{"a": 1}, *ROW[1:]]]},
    "bytes for a number": {"instances": [{"b64": "AAAA"}]},
    "too large for float32": {"instances": [[1e39, *ROW[1:]]]},
    "too small for float32": {"instances": [[-1e39, *ROW[1:]]]},
    "too large for a double": b'{"instances": [[1e999, 0, 0, 0, 0, 0, 0, 0, 0, 0]]}',
    "deep": b'{"instances": ' + b"[" * 300 + b"]" * 300 + b"}",
    "deep and not closed": b'{"instances": ' + b"[" * 300,
    "a deep list": b"[" * 300 + b"]" * 300,
    "a deep signature": b'{"instances": [0], "signature_name": ' + b"[" * 300 + b"]" * 300 + b"}",
}
BAD_SEEDS = {
    "a fraction": [1.5],
    "a float": b"[1.0]",
    "a float of an exponent": b"[1e3]",
    "2^63": [2**63],
    "-2^63 - 1": [-(2**63) - 1],
    "2^64": [2**64],
    "a string": ["1"],
    "a boolean": [True],
    "a boolean among numbers": [1, True],
    "null": [None],
    "rank too high": [[1], [2]],
    "ragged": [1, [2]],
    "too large for a double": b"[1e999]",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_body_is_refused(server, body):
    server.refusal(400, "POST", "{}:predict", body)


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("seeds", BAD_SEEDS.values(), ids=BAD_SEEDS)
def test_a_seed_is_an_int64(server, seeds, form):
    seeds = seeds if isinstance(seeds, bytes) else json.dumps(seeds).encode()
    body = b'{"signature_name": "generate", "%s": %s}' % (form.encode(), seeds)
    server.refusal(400, "POST", "{}:predict", body)


def test_messages_name_what_is_wrong(server):
    """Both servers' words hold the name that was not found."""
    body = {"signature_name": "no_such_signature", "instances": [ROW]}
    assert "no_such_signature" in server.refusal(400, "POST", "{}:predict", body)
    assert "elsewhere" in server.refusal(
        400, "POST", "{}/labels/elsewhere:predict", {"instances": [ROW]}
    )
    assert "instances" in server.refusal(400, "POST", "{}:predict", {})


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[NaN, 0, 0, 0, 0, 0, 0, 0, 0, 0]]}',  # TF Serving reads these words
        b'{"instances": [[-Infinity, 0, 0, 0, 0, 0, 0, 0, 0, 0]]}',
        {
            "instances": [[2**24 + 1, *ROW[1:]]]
        },  # TF Serving refuses what float32 cannot hold exactly
        {"inputs": {"z": [ROW], "x": 1}},  # TF Serving does not look at what it does not need
        {"instances": [ROW] * 65},  # deploy/batching.config has 64 at most
    ],
)
def test_where_servers_differ_they_answer_or_refuse(server, body):
    status, answer, _ = server.ask("POST", "{}:predict", body)
    assert status in (200, 400)
    assert list(answer) == ["predictions" if b"instances" in _bytes(body) else "outputs"] or (
        status == 400 and answer["error"]
    )


def _bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


NOT_FOUND = [("GET", ""), ("GET", "/metadata"), ("POST", ":predict")]


@pytest.mark.parametrize(("method", "verb"), NOT_FOUND)
@pytest.mark.parametrize(
    "where", ["/v1/models/nope", "{}/versions/99", "/v1/models/nope/versions/1"]
)
def test_an_unknown_model_or_version_is_not_found(server, where, method, verb):
    body = {"instances": [ROW]} if method == "POST" else None
    server.refusal(404, method, where + verb, body)


def test_an_unknown_label_is_refused(server):
    server.refusal(400, "POST", "{}/labels/nope:predict", {"instances": [ROW]})
    server.refusal(400, "GET", "{}/labels/nope/metadata")
    status, answer, _ = server.ask("GET", "{}/labels/nope")  # TF Serving: all of the versions
    assert (status, list(answer)) in [(200, ["model_version_status"]), (400, ["error"])]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/"),
        ("GET", "/v1/nope"),
        ("GET", "{}/"),
        ("GET", "{}/nope"),
        ("GET", "{}:predict"),
        ("GET", "{}/versions/one"),
        ("GET", "{}/versions/1/labels/stable"),
        ("POST", "{}"),
        ("POST", "{}/metadata"),
        ("POST", "{}:explain"),
        ("POST", "{}:PREDICT"),
        ("POST", "{}:classify"),
        ("POST", "{}:regress"),
        ("POST", "{}/versions/one:predict"),
        ("POST", "{}/versions/-1:predict"),
        ("PUT", "{}:predict"),
        ("DELETE", "{}"),
    ],
)
def test_a_malformed_request(server, method, path):
    server.refusal(400, method, path, None if method in ("GET", "DELETE") else {"instances": [ROW]})


@pytest.mark.parametrize("version", [2**63, "9" * 5000])
def test_a_version_that_is_no_int64(server, version):
    """TF Serving has no words for it."""
    assert server.ask("GET", f"{{}}/versions/{version}")[0] == 400
    body = {"instances": [ROW]}
    assert server.ask("POST", f"{{}}/versions/{version}:predict", body)[0] == 400


def test_other_paths(server):
    """Outside /v1/ there is nothing; inside, case does not matter, and letters may be escaped."""
    assert server.ask("GET", "/v2/models/vae")[0] == 404
    assert server.ask("POST", "/nope", {"instances": [ROW]})[0] == 404
    assert server.ask("GET", f"/V1/Models/{server.name}")[0] == 200
    assert server.ask("GET", f"/v1/models/%{ord(server.name[0]):x}{server.name[1:]}")[0] == 200


def test_a_connection_is_kept_after_a_refusal(server):
    """The next answer on it is to the next request."""
    seeds, bad = {"signature_name": "generate", "instances": [1]}, {"instances": [ROW[:9]]}
    first = server.predict(seeds)
    for _ in range(3):
        server.refusal(400, "POST", "{}:predict", bad)
        assert server.predict(seeds) == first


@pytest.mark.parametrize(
    ("verb", "noun"), [("classify", "classification"), ("regress", "regression")]
)
def test_examples_are_refused(server, verb, noun):
    def words(body):
        return server.refusal(400, "POST", f"{{}}:{verb}", body)

    one = {"examples": [{"x": 1.0}]}
    assert f"No {noun} inputs found in SignatureDef" in words(one)
    assert f"No {noun} inputs found in SignatureDef" in words({"signature_name": "decode", **one})
    assert "No signature was found with the name: no" in words({"signature_name": "no", **one})
    assert "key 'examples' is expected" in words({"instances": [ROW]})
    assert "examples" in words({"examples": []})
    assert "examples" in words({"examples": 5})
    server.refusal(404, "POST", f"/v1/models/nope:{verb}", one)
