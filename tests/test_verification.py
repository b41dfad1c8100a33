"""Exported models as a stranger finds them: good ones pass, and each bad one fails where it should."""

import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import REPOSITORY
from small_models import Autoencoder, Labelled, Turned, TwoLayers, save_run
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from vae_tf import VAE, export_decoder
from vae_tf.export import c_api, trial
from vae_tf.export.verify import CHECKS, verify
from vae_tf.export.warmup import WARMUP_BATCH_SIZES, WARMUP_FILE

WEIGHTS = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")
INPUTS = {"z": ((3,), tf.float32), "seed": ((), tf.int64), "images": ((8, 8, 1), tf.float32)}
INPUTS |= {"label": ((), tf.int64)}


def failed(verification):
    return {check.name for check in verification.checks if not check.passed}


def detail(verification, name):
    return next(check.detail for check in verification.checks if check.name == name)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, and its model exported with all signatures."""
    model = VAE(latent_dim=3, hidden_units=(32, 16), seed=0)
    return run_and_export(model, tmp_path_factory.mktemp("exported"))


def run_and_export(model, folder, shape=(8, 8, 1)):
    model.build((None, *shape))
    save_run(model, folder / "run")
    export_decoder(model, folder / "model", with_encoder=True)
    return folder


@pytest.fixture(scope="module")
def verified(exported):
    return verify(exported / "model", exported / "run")


@pytest.fixture
def here(monkeypatch):
    """The C API in this process: what does not depend on the process is checked in a third of the time."""

    def answer(library, path, runs, seconds):
        return c_api.run(library, path, runs) | {"modules": ["numpy"]}

    monkeypatch.setattr(trial, "run_in_fresh_process", answer)


class Small(tf.Module):
    """A decoder of one matrix product, from which the bad ones are made."""

    def __init__(self, **changed):
        self.weights, self.count = tf.Variable(WEIGHTS), tf.Variable(0.0)
        self.changed = changed

    def draw(self, seed):
        def row(seed):
            return tf.random.stateless_normal((3,), tf.stack([seed, 0]))

        z = tf.map_fn(row, seed, fn_output_signature=tf.float32)
        return self.changed.get("draw", lambda _, z, seed: z)(self, z, seed)

    def image(self, z):
        image = tf.reshape(tf.sigmoid(z @ self.weights), (-1, 8, 8, 1))
        return self.changed.get("image", lambda image: image)(image)

    def decode(self, z):
        return {"probabilities": self.image(z)}

    def generate(self, seed):
        z = self.draw(seed)
        return {"images": self.image(z), "z": z}

    def generate_png(self, seed):
        levels = tf.round(255 * tf.clip_by_value(self.image(self.draw(seed)), 0, 1))
        encode = self.changed.get("encode_image", tf.io.encode_png)
        return {
            "png_bytes": tf.map_fn(encode, tf.cast(levels, "uint8"), fn_output_signature=tf.string)
        }

    def save(self, path, **more):
        """Write it with a warm-up file.

        `more` adds or replaces signatures, (function, inputs), and takes away those that are None.
        """
        functions = {
            "serving_default": (self.decode, "z"),
            "decode": (self.decode, "z"),
            "generate": (self.generate, "seed"),
            "generate_png": (self.generate_png, "seed"),
        }
        pairs = {name: pair for name, pair in (functions | more).items() if pair is not None}
        traced = {name: traced_with(*pair) for name, pair in pairs.items()}
        tf.saved_model.save(self, str(path), traced)
        write_warmup(path / WARMUP_FILE, traced)
        return path


def traced_with(function, *inputs):
    """With a free batch dimension; an input is a name of `INPUTS`, or a `TensorSpec`."""
    specs = [
        key
        if isinstance(key, tf.TensorSpec)
        else tf.TensorSpec((None, *INPUTS[key][0]), INPUTS[key][1], key)
        for key in inputs
    ]
    return tf.function(function, input_signature=specs, autograph=False)


def write_warmup(path, traced, sizes=WARMUP_BATCH_SIZES):
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, function in traced.items():
            for size in sizes:
                request = predict_pb2.PredictRequest()
                request.model_spec.signature_name = name
                for spec in function.input_signature:
                    zeros = np.zeros((size, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
                    request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(zeros))
                log = prediction_log_pb2.PredictLog(request=request)
                writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def test_an_export_passes_every_check(verified):
    assert failed(verified) == set()
    assert verified.passed
    assert [check.name for check in verified.checks] == list(CHECKS)
    imported = r"the standard library and (cython_runtime, )?numpy$"  # NumPy 1's own
    assert re.search(imported, detail(verified, "loads by the C API"))
    assert verified.tensorflow_version == tf.__version__
    assert list(verified.operations) == sorted(verified.operations)
    assert verified.operations["EncodePng"] == 1
    assert "SaveV2" in verified.operations


@pytest.mark.slow  # the contract test has them in short
@pytest.mark.parametrize("model", [Labelled, Turned, Autoencoder, TwoLayers])
def test_every_kind_of_model_passes_against_its_run(model, here, tmp_path):
    options = {"latent_dim": 2, "hidden_units": (8,)} if issubclass(model, VAE) else {}
    folder = run_and_export(model(seed=0, **options), tmp_path)
    verification = verify(folder / "model", folder / "run")
    assert failed(verification) == set()
    expected = set(CHECKS) - ({"seeds", "signatures agree"} if model is Autoencoder else set())
    assert {check.name for check in verification.checks} >= expected
    alone = verify(folder / "model")  # which does not know that a Gaussian's pixels have no range
    assert failed(alone) == (set() if issubclass(model, VAE) else {"values"})
    assert model is Labelled or model is Turned or "compare with its run" in detail(alone, "values")


@pytest.mark.slow
def test_a_conditional_model_is_compared_for_every_class(here, tmp_path):
    """The exported table of classes differs in its last row alone."""
    model = Labelled(latent_dim=2, hidden_units=(8,), seed=0)
    folder = run_and_export(model, tmp_path)
    table = model.shift.weights[0]
    table.assign(table.value + np.eye(4)[:, 3:])
    save_run(model, folder / "run")
    verification = verify(folder / "model", folder / "run")
    assert failed(verification) == {"equals the run"}
    assert "decode: probabilities differs by" in detail(verification, "equals the run")
    assert failed(verify(folder / "model")) == set()


def test_with_its_run_every_signature_of_the_model_is_asked_for(here, tmp_path):
    folder = run_and_export(VAE(latent_dim=2, hidden_units=(8,), seed=0), tmp_path)
    bare = Autoencoder(seed=0)
    bare.build((None, 8, 8, 1))
    export_decoder(bare, tmp_path / "bare", with_encoder=True)
    verification = verify(tmp_path / "bare", folder / "run")
    missing = "without generate, generate_png, score: export it again"
    assert missing in detail(verification, "signatures")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.slow
def test_half_precision_passes(policy, here, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = VAE(latent_dim=2, hidden_units=(32,), seed=0)
        folder = run_and_export(model, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert failed(verify(folder / "model", folder / "run")) == set()


@pytest.mark.parametrize(("shape", "picture"), [((8, 8), True), ((64,), False), ((8, 4, 2), False)])
def test_pictures_alone_need_a_png(shape, picture, here, tmp_path):
    model = VAE(latent_dim=3, hidden_units=(8,), seed=0)
    model.build((None, *shape))
    verification = verify(export_decoder(model, tmp_path / "m"))
    assert failed(verification) == set()
    assert ("generate_png" in detail(verification, "signatures")) == picture


def test_the_decoder_that_ships_passes_every_check(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['keras'] = sys")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # which the process ignores
    assert failed(verify(REPOSITORY / "saved_models" / "mnist_z10")) == set()


def test_the_small_model_passes(tmp_path):
    assert failed(verify(Small().save(tmp_path / "1"))) == set()
    assert verify(tmp_path).path == tmp_path / "1"


def _nan_for_the_least(module, z, seed):
    return tf.where((seed == tf.int64.min)[:, None], np.nan, z)


def _read(module, z, seed):
    content = tf.io.read_file(module.changed["file"])
    return z + 0 * tf.cast(tf.strings.length(content), "float32")


BAD_DRAWS = {
    "ignores the seed": ("seeds", lambda m, z, seed: tf.ones_like(z)),
    "depends on its place": ("seeds", lambda m, z, seed: tf.cumsum(z)),
    "not finite for an extreme seed": ("seeds", _nan_for_the_least),
    "stateful noise": ("operations", lambda m, z, seed: z + 0 * tf.random.normal(tf.shape(z))),
    "counts": ("operations", lambda m, z, seed: z + 0 * m.count.assign_add(1.0)),
    "reads a file": ("operations", _read),
}


@pytest.mark.parametrize(("check", "draw"), BAD_DRAWS.values(), ids=BAD_DRAWS)
def test_a_bad_draw(check, draw, here, tmp_path):
    (tmp_path / "file").write_text("")
    small = Small(draw=draw, file=str(tmp_path / "file"))
    assert failed(verify(small.save(tmp_path / "1"))) == {check}


BAD_IMAGES = {
    "compiled by XLA": ("operations", {"image": tf.function(lambda x: x * 1.0, jit_compile=True)}),
    "above 1": ("values", {"image": lambda x: 1.5 * x}),
    "not a number": ("values", {"image": lambda x: x + np.nan}),
    "another picture": ("signatures agree", {"encode_image": lambda x: tf.io.encode_png(255 - x)}),
    "a JPEG": ("signatures agree", {"encode_image": tf.io.encode_jpeg}),
}


@pytest.mark.parametrize(("check", "changed"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image(check, changed, here, tmp_path):
    assert failed(verify(Small(**changed).save(tmp_path / "1"))) == {check}


def _renamed(small, old, new):
    def generate(seed):
        outputs = small.generate(seed)
        return {new if key == old else key: value for key, value in outputs.items()}

    return generate


def _mixed(images):
    """Codes that depend on the rest of the batch."""
    mean = tf.reduce_mean(images, axis=(1, 2))
    return {
        "z_mean": tf.repeat(mean - tf.reduce_mean(mean), 3, -1),
        "z_log_var": 0 * tf.repeat(mean, 3, -1),
    }


def _python(z):
    return {"z": tf.ensure_shape(tf.py_function(lambda z: z, [z], tf.float32), (None, 3))}


def _reconstruct(images):
    return {"images": images}


def _score(images, seed):
    return {"elbo": -tf.reduce_sum(images, axis=(1, 2, 3))}


ENCODER = {"reconstruct": (_reconstruct, "images"), "score": (_score, "images", "seed")}
BAD_SIGNATURES = {  # the check that fails, a word of its detail, and the signatures
    "fixed batch": (
        "batching",
        "decode has no free batch dimension",
        lambda m: {"decode": (m.decode, tf.TensorSpec((7, 3), tf.float32, "z"))},
    ),
    "one row of many": (
        "batching",
        "decode, 7: probabilities of shape (1, 8, 8, 1)",
        lambda m: {"decode": (lambda z: m.decode(z[:1]), "z")},
    ),
    "rows that mix": (
        "batching",
        "encode, 7: z_mean differs by",
        lambda m: {"encode": (_mixed, "images"), **ENCODER},
    ),
    "part of the encoder": (
        "signatures",
        "without encode, reconstruct",
        lambda m: {"score": ENCODER["score"]},
    ),
    "draws without pictures": (
        "signatures",
        "without generate_png",
        lambda m: {"generate_png": None},
    ),
    "another condition": (
        "signatures",
        "several inputs as a condition: angle, label",
        lambda m: {
            "decode": (lambda z, label: m.decode(z), "z", "label"),
            "serving_default": (
                lambda z, angle: m.decode(z),
                "z",
                tf.TensorSpec((None,), tf.float32, "angle"),
            ),
        },
    ),
    "a condition of another type": (
        "dtypes and shapes",
        "label of decode is int32, not float or int64",
        lambda m: {
            "decode": (
                lambda z, label: m.decode(z),
                "z",
                tf.TensorSpec((None,), tf.int32, "label"),
            ),
            "serving_default": (lambda z, label: m.decode(z), "z", "label"),
            "generate": (lambda seed, label: m.generate(seed), "seed", "label"),
            "generate_png": (lambda seed, label: m.generate_png(seed), "seed", "label"),
        },
    ),
    "another name": (
        "signatures",
        "generate gives image, z, not images, z",
        lambda m: {"generate": (_renamed(m, "images", "image"), "seed")},
    ),
    "another input": (
        "signatures",
        "decode takes code, not z",
        lambda m: {"decode": (m.decode, tf.TensorSpec((None, 3), tf.float32, "code"))},
    ),
    "a label for some": (
        "signatures",
        "generate, generate_png without the label that serving_default takes",
        lambda m: {
            k: (lambda z, label: m.decode(z), "z", "label") for k in ("decode", "serving_default")
        },
    ),
    "another output dtype": (
        "dtypes and shapes",
        "probabilities of decode is double, not float",
        lambda m: {"decode": (lambda z: {"probabilities": tf.cast(m.image(z), "float64")}, "z")},
    ),
    "another input dtype": (
        "dtypes and shapes",
        "seed of generate_png is int32, not int64",
        lambda m: {
            "generate_png": (
                lambda seed: m.generate_png(tf.cast(seed, "int64")),
                tf.TensorSpec((None,), tf.int32, "seed"),
            )
        },
    ),
    "another shape": (
        "dtypes and shapes",
        "a row of seed has the shape () or (1,)",
        lambda m: {
            "generate": (
                lambda seed: m.generate(seed[:, 0]),
                tf.TensorSpec((None, 1), tf.int64, "seed"),
            )
        },
    ),
    "decode by itself": (
        "signatures agree",
        "decode and serving_default: probabilities differs by",
        lambda m: {"decode": (lambda z: {"probabilities": 0.999 * m.image(z)}, "z")},
    ),
    "images that are not of their z": (
        "signatures agree",
        "generate and its z decoded: images differs by",
        lambda m: {
            "generate": (
                lambda s: m.generate(s) | {"images": 0.999 * m.generate(s)["images"]},
                "seed",
            )
        },
    ),
    "codes of two sizes": (
        "dtypes and shapes",
        "a row of z has the shape (2,) or (3,)",
        lambda m: {
            "encode": (lambda x: {"z_mean": x[:, :3, 0, 0], "z_log_var": x[:, :2, 0, 0]}, "images"),
            **ENCODER,
        },
    ),
    "Python": ("operations", "EagerPyFunc runs Python", lambda m: {"more": (_python, "z")}),
}


@pytest.mark.parametrize(("check", "words", "more"), BAD_SIGNATURES.values(), ids=BAD_SIGNATURES)
def test_a_bad_signature(check, words, more, here, tmp_path):
    small = Small()
    verification = verify(small.save(tmp_path / "1", **more(small)))
    assert failed(verification) == {check}
    assert words in detail(verification, check)


def test_values_off_by_a_thousandth_are_not_those_of_the_run(exported, here, tmp_path):
    shutil.copytree(exported / "run", tmp_path / "run")
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    bias = model.decoder.weights[-1]
    bias.assign(bias.value + 0.004)  # the sigmoid's slope is 1/4 at most
    model.save(tmp_path / "run" / "model.keras")
    verification = verify(exported / "model", tmp_path / "run")
    assert failed(verification) == {"equals the run"}
    assert "decode: probabilities differs by 1.0e-03" in detail(verification, "equals the run")
    assert "encode" not in detail(verification, "equals the run")


def test_a_run_of_another_shape_is_no_exception(exported, here, tmp_path):
    other = VAE(latent_dim=2, hidden_units=(8,), seed=0)
    other.build((None, 4, 4, 1))
    save_run(other, tmp_path)
    assert failed(verify(exported / "model", tmp_path)) == {"equals the run"}


@pytest.fixture
def saved(here, tmp_path):
    """A good model, to be damaged."""
    return Small().save(tmp_path / "1")


def test_warmup_files(saved):
    file = saved / WARMUP_FILE
    whole = file.read_bytes()

    def found():
        verification = verify(saved)
        assert failed(verification) == {"warm-up requests"}
        return detail(verification, "warm-up requests")

    file.write_bytes(whole[:-5])
    assert "is damaged" in found()
    file.write_bytes(b"")
    assert "holds no request" in found()
    file.write_bytes(whole * 36)
    assert "1008 records" in found()
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(file)).take(28)]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in [*records[1:], b"", bad_request(records[0])]:
            writer.write(record)
    assert found().startswith("no requests to a signature: records 27; ")
    assert "no request of serving_default with 1 rows" in found()
    assert "serving_default, request 27: " in found()
    file.unlink()
    assert "export it again" in found()


def bad_request(record):
    """The record with codes of another size."""
    log = prediction_log_pb2.PredictionLog.FromString(record)
    codes = tf.make_tensor_proto(np.zeros((3, 4), np.float32))
    log.predict_log.request.inputs["z"].CopyFrom(codes)
    return log.SerializeToString()


BAD_OPERATIONS = {
    "OfAnotherLibrary": "is not TensorFlow's own",
    "XlaSort": "needs TF Serving's XLA flag",
    "RandomUniform": "has state: what it draws, keeps or writes does not follow from its inputs",
}


@pytest.mark.parametrize("operation", BAD_OPERATIONS)
def test_a_bad_operation_anywhere(operation, saved):
    file = saved / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    function = model.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = "unused"
    function.node_def.add(name="node", op=operation)
    file.write_bytes(model.SerializeToString())
    verification = verify(saved)
    assert failed(verification) == {"operations"}
    expected = f"not run, for {operation} {BAD_OPERATIONS[operation]}"
    assert detail(verification, "operations") == expected


DAMAGED = {
    "cut": ("", lambda content: content[: len(content) // 2]),
    "empty": ("no graph with the tag 'serve'", lambda content: b""),
}


@pytest.mark.parametrize(("words", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_saved_model_fails_the_first_check_and_has_no_other(words, damage, saved):
    file = saved / "saved_model.pb"
    file.write_bytes(damage(file.read_bytes()))
    verification = verify(saved)
    assert [(check.name, check.passed) for check in verification.checks] == [
        ("loads by the C API", False)
    ]
    assert words in verification.checks[0].detail
    assert not verification.passed


def test_damaged_variables_fail_the_first_check(saved):
    file = saved / "variables" / "variables.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-100])
    assert failed(verify(saved)) == {"loads by the C API"}


def test_a_process_that_imports_keras_is_found(saved, monkeypatch):
    answer = trial.run_in_fresh_process

    def with_keras(*arguments):
        return answer(*arguments) | {"modules": ["keras", "numpy"]}

    monkeypatch.setattr(trial, "run_in_fresh_process", with_keras)
    assert failed(verify(saved)) == {"loads by the C API"}


def _through_weights(module, z, seed):
    return z @ module.weights[:, :3]


@pytest.mark.parametrize(
    ("changed", "bad"),
    [({}, {"seeds"}), ({"draw": _through_weights}, set())],
    ids=["bare", "by weights"],
)
def test_another_process_must_give_the_same_codes(changed, bad, here, monkeypatch, tmp_path):
    """Bit for bit where no weights take part, whose products may be rounded in another order."""
    run = trial.run_in_fresh_process

    def unlike(library, path, runs, seconds):
        answer = run(library, path, runs, seconds)
        for (feeds, _), arrays in zip(runs, answer["outcomes"], strict=True):
            if all(len(value) == 5 for value in feeds.values()):  # those of the second process
                arrays |= {k: v + 1e-7 for k, v in arrays.items() if v.shape == (5, 3)}
        return answer

    monkeypatch.setattr(trial, "run_in_fresh_process", unlike)
    verification = verify(Small(**changed).save(tmp_path / "1"))
    assert failed(verification) == bad
    if bad:
        assert "generate, another process: z differs by" in detail(verification, "seeds")


def test_the_c_api_gives_what_tensorflow_gives(exported):
    """In a process of its own, for every type that a signature has, and a message where it fails."""
    path, seeds = exported / "model" / "1", np.array([5, -7, 2**60])
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    seed, calls = None, []
    for name in ("generate_png", "generate"):
        signature = saved.meta_graphs[0].signature_def[name]
        seed = signature.inputs["seed"].name
        calls.append(
            ({seed: seeds}, [signature.outputs[k].name for k in sorted(signature.outputs)])
        )
    calls += [({"nothing:0": seeds}, []), ({seed: seeds.astype("float32")}, calls[1][1])]
    found = c_api.run_in_fresh_process(c_api.library_path(), path, calls, 100)
    assert not {"tensorflow", "keras", "vae_tf"} & set(found["modules"])
    *given, missing, refused = found["outcomes"]
    functions = tf.saved_model.load(str(path)).signatures
    for name, arrays in zip(("generate_png", "generate"), given, strict=True):
        expected = functions[name](seed=tf.constant(seeds))
        for key, array in zip(sorted(expected), arrays.values(), strict=True):
            if key == "png_bytes":
                assert array.tolist() == expected[key].numpy().tolist()
            else:
                np.testing.assert_allclose(array, expected[key], atol=1e-6)
    assert "no operation 'nothing'" in missing
    assert isinstance(refused, str)


def test_a_process_that_dies_says_so():
    with pytest.raises(RuntimeError, match="ended with 1: OSError"):
        c_api.run_in_fresh_process("/no/library", "/no/model", [], 100)


def test_refusals(exported, tmp_path):
    with pytest.raises(ValueError, match="'path'"):
        verify(tmp_path)
    with pytest.raises(ValueError, match="'run'"):
        verify(exported / "model", tmp_path)
