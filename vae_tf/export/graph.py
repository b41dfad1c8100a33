"""What saved_model.pb holds: the signatures, and the operations that a server would run."""

import collections
import pathlib
import re

from tensorflow.core.framework import op_def_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

_RESTORING = {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "AssignVariableOp"}
_WEIGHTS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
_READING = _WEIGHTS | {  # operations with state that may be served
    *("VarHandleOp", "DisableCopyOnRead", "VariableShape", "VarIsInitializedOp"),
    *("HashTableV2", "LookupTableFindV2", "StatelessRandomGetAlg"),
    *("StatefulPartitionedCall", "If", "While", "Case", "Assert", "CheckNumerics"),
}
_OBJECTIONS = {  # why an operation with such a word in its name should not be served
    "runs Python": "PyFunc",
    "needs TF Serving's XLA flag": "Xla|TPU",
    "reads or writes files": "File|Directory|Reader|Save|Restore|Checkpoint|Summary|LMDB|Sql|"
    "LoadAndRemap|LoadDataset|(CSV|Record|TextLine|FixedLength.*|Snapshot)Dataset",
}
_XLA_MARKS = ("_XlaMustCompile", "_XlaCompile", "_xla_compile_id")
_HALF = {types_pb2.DT_BFLOAT16, types_pb2.DT_HALF}


def serve_graph(path):
    """The graph of a version with the tag `serve`, which servers load.

    Args:
        path: the directory that holds `saved_model.pb`.

    Raises:
        DecodeError: saved_model.pb is damaged.
        RuntimeError: it holds nothing to serve.
    """
    content = (pathlib.Path(path) / "saved_model.pb").read_bytes()
    for graph in saved_model_pb2.SavedModel.FromString(content).meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise RuntimeError("saved_model.pb holds no graph with the tag 'serve'")


def signature_defs(graph):
    """The signatures of a graph by name, without TensorFlow's own."""
    return {name: d for name, d in graph.signature_def.items() if not name.startswith("__")}


def shape_of(info):
    """The sizes of a tensor, -1 where one is free; () where its rank is unknown."""
    return tuple(dim.size for dim in info.tensor_shape.dim)


def dtype_of(info):
    """The name of a tensor's type, such as "float" or "int64"."""
    return types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()


def count_operations(graph):
    """How often each operation occurs, in the graph and in its functions, by name."""
    return dict(sorted(collections.Counter(node.op for node in _nodes(graph)).items()))


def computes_in_half_precision(graph):
    """Whether any operation computes in bfloat16 or float16."""
    return any(node.attr["T"].type in _HALF for node in _nodes(graph) if "T" in node.attr)


def operation_problems(graph, registry):
    """Why operations of a graph should not be served: a list of sentences.

    Args:
        graph: as `serve_graph` gives it.
        registry: TensorFlow's own operations, as the bytes of an `OpList`.
    """
    own = {operation.name: operation for operation in op_def_pb2.OpList.FromString(registry).op}
    reached = {node.op for node in _reached(graph, _outputs(graph))}
    problems = []
    for operation in count_operations(graph):
        objection = _objection(operation, own.get(operation), operation in reached)
        if objection and operation not in _functions(graph):
            problems.append(f"{operation} {objection}")
    parts = [*_nodes(graph), *graph.graph_def.library.function]
    if any(
        part.attr[m].b or part.attr[m].s for part in parts for m in _XLA_MARKS if m in part.attr
    ):
        problems.append("a function compiled by XLA needs TF Serving's XLA flag")
    return problems


def uses_weights(graph, tensor):
    """Whether a tensor of the graph, by its name, is computed from weights of the model."""
    nodes = _reached(graph, [tensor], whole_functions=False)
    return any(node.op in _WEIGHTS for node in nodes)


def _objection(operation, definition, served):
    """Why an operation should not be in a served model, or None."""
    if definition is None:
        return "is not TensorFlow's own"
    if operation in _READING or (operation in _RESTORING and not served):
        return None
    for why, words in _OBJECTIONS.items():
        if re.search(words, operation):
            return why
    replayed = "has state: a fresh server begins it anew, and replays its random numbers"
    return replayed if definition.is_stateful else None


def _nodes(graph):
    yield from graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield from function.node_def


def _functions(graph):
    return {function.signature.name: function for function in graph.graph_def.library.function}


def _outputs(graph):
    """The names of all outputs of all signatures."""
    return [i.name for s in signature_defs(graph).values() for i in s.outputs.values()]


def _reached(graph, tensors, whole_functions=True):
    """The nodes on which tensors of the graph depend, those inside of functions among them.

    Args:
        tensors: names of tensors, such as "StatefulPartitionedCall:1".
        whole_functions: whether a call depends on everything in the function, as what a request
            runs does; or only on what the output that is asked for is computed from.
    """
    functions = _functions(graph)
    nodes = {name: {n.name: n for n in f.node_def} for name, f in functions.items()}
    nodes[None] = {node.name: node for node in graph.graph_def.node}
    waiting, seen = [(None, tensor) for tensor in tensors], set()
    while waiting:
        function, tensor = place = waiting.pop()
        name, _, index = tensor.lstrip("^").partition(":")
        if place in seen or name not in nodes[function]:
            continue  # what is not there is an argument of the function
        seen.add(place)
        node = nodes[function][name]
        yield node
        links = [link for link in node.input if whole_functions or link[0] != "^"]
        waiting += [(function, link) for link in links]  # "^": runs before, and gives no value
        for called in _called(node, functions):
            body = functions[called]
            inside = [n.name for n in body.node_def] if whole_functions else _returned(body, index)
            waiting += [(called, tensor) for tensor in inside]


def _called(node, functions):
    """The names of the functions that a node calls."""
    values = [value.func.name for value in node.attr.values()]
    values += [f.name for value in node.attr.values() for f in value.list.func]
    return {node.op, *values} & set(functions)


def _returned(body, index):
    """The tensors that a function returns as the output of its call with this number."""
    names = [argument.name for argument in body.signature.output_arg]
    number = int(index.rpartition(":")[2] or 0)  # "1" in the graph, "output:1" in a function
    return [body.ret[names[number]]] if number < len(names) else [*body.ret.values()]
