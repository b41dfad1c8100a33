"""Models that do what they should not: judged before they are loaded, and given so much time."""

import time

import hostile_models
import pytest
import tensorflow as tf
from hostile_models import edited, save

from vae_tf import cli, generate_from_saved_model
from vae_tf.export import c_api
from vae_tf.export.graph import serve_graph
from vae_tf.export.operations import has_loops, operation_problems
from vae_tf.export.verify import verify
from vae_tf.export.warmup import WARMUP_FILE
from vae_tf.serving import servable


def problems(path):
    return operation_problems(serve_graph(path))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return save(tmp_path_factory.mktemp("good") / "1")


@pytest.fixture
def copy(good, tmp_path):
    """A good model, to be changed."""
    tf.io.gfile.makedirs(str(tmp_path / "1"))
    (tmp_path / "1" / "saved_model.pb").write_bytes((good / "saved_model.pb").read_bytes())
    return tmp_path / "1"


# What runs before it is judged runs too soon.


def writing(file):
    def compute(z):
        with tf.control_dependencies([tf.io.write_file(str(file), "x")]):
            return tf.identity(z)

    return compute


@pytest.mark.parametrize("where", ["a request", "loading"])
def test_nothing_of_a_model_that_writes_a_file_is_run(where, tmp_path, monkeypatch):
    file = tmp_path / "written"
    if where == "a request":
        path = save(tmp_path / "1", writing(file))
    else:
        resource = hostile_models.Resource(lambda: tf.io.write_file(str(file), "x"))
        path = save(tmp_path / "1", resource=resource)
        tf.saved_model.load(str(path))
        assert file.exists()  # it does what it is for
        file.unlink()
    monkeypatch.setattr(c_api, "run_in_fresh_process", pytest.fail)
    verification = verify(path)
    [check] = [check for check in verification.checks if check.name == "operations"]
    assert (check.passed, check.detail.startswith("not run, for WriteFile")) == (False, True)
    assert "loads by the C API" not in [check.name for check in verification.checks]
    with pytest.raises(servable.RefusedError, match="WriteFile reads or writes files"):
        servable.load(path, 8)
    with pytest.raises(ValueError, match=r"'path'.*WriteFile reads or writes files"):
        generate_from_saved_model(path, 1)
    assert not file.exists()
    servable.load(path, 8, trust_model=True)
    assert file.exists()


def save_ops(graph):
    """The nodes that save and that restore."""
    nodes = {node.name: node for node in graph.graph_def.node}
    saver = graph.saver_def
    return nodes[saver.save_tensor_name.partition(":")[0]], nodes[saver.restore_op_name]


def save_on_restoring(model):
    graph = model.meta_graphs[0]
    graph.saver_def.restore_op_name = save_ops(graph)[0].name


def save_on_loading(model):
    graph = model.meta_graphs[0]
    function = save_ops(graph)[0].attr["f"].func.name
    graph.object_graph_def.concrete_functions[function].SetInParent()


def save_as_init_op(model):
    graph = model.meta_graphs[0]
    outputs = graph.signature_def["__saved_model_init_op"].outputs
    outputs["__saved_model_init_op"].name = save_ops(graph)[0].name


def save_as_main_op(model):
    graph = model.meta_graphs[0]
    nodes = graph.collection_def["legacy_init_op"].node_list
    nodes.value.append(save_ops(graph)[0].name)


@pytest.mark.parametrize(
    "change", [save_on_restoring, save_on_loading, save_as_init_op, save_as_main_op]
)
def test_a_checkpoint_is_not_written_by_loading(change, copy):
    assert problems(copy) == []
    with edited(copy) as model:
        change(model)
    assert "SaveV2 reads or writes files" in problems(copy)


def restored(z):
    [read] = tf.raw_ops.RestoreV2(
        prefix="/x", tensor_names=["y"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return z + tf.reduce_sum(read)


def test_a_request_restores_nothing(tmp_path):
    assert problems(save(tmp_path / "1", restored)) == ["RestoreV2 reads or writes files"]


def test_a_request_changes_no_variable(tmp_path):
    variable = tf.Variable(1.0)

    def count(z):
        return z * tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32)

    def assign(z):
        variable.assign(tf.reduce_sum(z))
        return z

    assert problems(save(tmp_path / "1", count, resource=variable)) == []
    found = problems(save(tmp_path / "2", assign, resource=variable))
    assert [problem.split()[0] for problem in found] == ["AssignVariableOp"]


HARMFUL = [
    "ReadFile",
    "WriteFile",
    "MatchingFiles",
    "PyFunc",
    "EagerPyFunc",
    "PyFuncStateless",
    "PrintV2",
    "Abort",
    "ImmutableConst",
    "DecodeProtoV2",
    "EncodeProto",
    "DebugIdentity",
    "DebugIdentityV2",
    "CacheDataset",
    "SaveDatasetV2",
    "LoadDataset",
    "TFRecordDataset",
    "TextLineDataset",
    "InitializeTableFromTextFileV2",
    "SqlDataset",
    "RemoteCall",
    "RpcClient",
    "MlirPassthroughOp",
    "XlaLaunch",
    "XlaHostCompute",
    "XlaCustomCallV2",
    "MutableHashTableV2",
    "LookupTableInsertV2",
    "GeneratorDataset",
    "SleepOp",
    "LoadAndRemapMatrix",
    "SummaryWriter",
    "_Send",
    "_Recv",
    "SymbolicGradient",
    "Empty",
]


def test_operations_that_are_refused_wherever_they_are(copy):
    with edited(copy) as model:
        function = model.meta_graphs[0].graph_def.library.function.add()
        function.signature.name = "unused"
        for name in HARMFUL:
            function.node_def.add(name=name, op=name)
    assert {problem.split()[0] for problem in problems(copy)} == {*HARMFUL}


def test_a_function_of_an_operations_name_hides_nothing(copy):
    with edited(copy) as model:
        library = model.meta_graphs[0].graph_def.library
        library.function.add().signature.name = "WriteFile"
        model.meta_graphs[0].graph_def.node.add(name="node", op="WriteFile")
    assert problems(copy) == ["WriteFile reads or writes files"]


def test_only_the_graph_that_is_loaded_is_judged(copy):
    """Those with more tags, which come first, are not."""
    with edited(copy) as model:
        bad = model.meta_graphs[0]
        other = model.meta_graphs.add()
        other.CopyFrom(bad)
        other.meta_info_def.tags.append("gpu")
        bad.graph_def.node.add(name="node", op="WriteFile")
        model.meta_graphs.reverse()
    assert problems(copy) == ["WriteFile reads or writes files"]


def call(function, name, called):
    node = function.node_def.add(name=name, op="PartitionedCall")
    node.attr["f"].func.name = called


def test_functions_that_call_themselves(copy):
    """Which ends the process of whoever loads them."""
    with edited(copy) as model:
        library = model.meta_graphs[0].graph_def.library
        for name, called in (("f", "g"), ("g", "f")):
            function = library.function.add()
            function.signature.name = name
            call(function, "node", called)
    [problem] = problems(copy)
    assert problem.startswith(("the function f", "the function g"))
    assert problem.endswith("calls itself")


def test_functions_that_call_each_other_too_often(copy):
    """Forty that call the next one twice each: 2⁴⁰ operations."""
    with edited(copy) as model:
        library = model.meta_graphs[0].graph_def.library
        for number in range(40):
            function = library.function.add()
            function.signature.name = f"f{number}"
            for twice in range(2 * (number < 39)):
                call(function, f"node{twice}", f"f{number + 1}")
    [problem] = problems(copy)
    assert "more than 1,000,000 operations" in problem


# What a model of another tool may do.


def test_pictures_tables_and_loops_are_allowed(tmp_path):
    values = tf.constant([1.0, 2.0])
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a", "b"], values), default_value=0.0
    )

    def compute(z):
        file = tf.io.encode_png(tf.cast(tf.reshape(z, (-1, 2, 1)), tf.uint8))
        levels = tf.cast(tf.reshape(tf.io.decode_png(file), (-1, 2)), tf.float32)
        words = tf.strings.split(tf.constant(["a b"])).to_tensor()
        return tf.map_fn(lambda row: row + table.lookup(words)[0], levels)

    path = save(tmp_path / "1", compute, resource=table)
    assert problems(path) == []
    assert has_loops(serve_graph(path))
    z = tf.constant([[3.0, 5.0]])
    found = servable.load(path, 8).predict("decode", {"z": z.numpy()})
    assert found["probabilities"].tolist() == [[2 * (3 + 1), 2 * (5 + 2)]]


def test_python_is_not(tmp_path):
    def compute(z):
        return tf.ensure_shape(tf.py_function(lambda z: z, [z], tf.float32), (None, 2))

    assert problems(save(tmp_path / "1", compute)) == ["EagerPyFunc runs Python"]


# What does not end.


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    return save(tmp_path_factory.mktemp("loop") / "1", hostile_models.endless)


def test_a_loop_without_end_is_killed(loop, capsys):
    assert problems(loop) == []
    start = time.monotonic()
    assert cli.main(["verify-export", str(loop), "--timeout", "2"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  loads by the C API" in out
    assert "passed  operations" in out
    assert "its process had not ended after 2 seconds, and was killed: an endless loop" in out
    with pytest.raises(RuntimeError, match="after 2 seconds, and was killed"):
        servable.load(loop, 8, seconds=2.0)
    assert time.monotonic() - start < 60


def test_what_cannot_be_killed_is_left_behind(tmp_path):
    """A trusted model whose Python waits."""
    wait = [True]

    def sleep(z):
        while wait:
            time.sleep(0.01)
        return z

    def compute(z):
        return tf.ensure_shape(tf.py_function(sleep, [z], tf.float32), (None, 2))

    path = save(tmp_path / "1", compute)
    try:
        with pytest.raises(TimeoutError, match=r"after 0\.5 seconds.*goes on in the background"):
            servable.load(path, 8, trust_model=True, seconds=0.5)
    finally:
        wait.clear()


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_timeouts_that_are_none(value, good, capsys):
    assert cli.main(["verify-export", str(good), "--timeout", value]) == 2
    assert "'timeout'" in capsys.readouterr().err


def test_a_recorded_shape_is_no_reason_to_take_memory(good, tmp_path):
    """2⁴⁰ rows of which one number is written."""
    tf.io.gfile.makedirs(str(tmp_path / "1" / "assets.extra"))
    (tmp_path / "1" / "saved_model.pb").write_bytes((good / "saved_model.pb").read_bytes())
    hostile_models.write_warmup(tmp_path / "1", ["decode"], rows=2**40)
    with pytest.raises(ValueError, match=r"'z' has the shape \(1099511627776, 2\)"):
        servable.load(tmp_path / "1", 8)
    [record] = tf.data.TFRecordDataset(str(tmp_path / "1" / WARMUP_FILE)).as_numpy_iterator()
    assert len(record) < 200
