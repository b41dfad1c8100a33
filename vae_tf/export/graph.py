"""What saved_model.pb holds: the signatures, and what is computed from what."""

import collections
import pathlib
import re

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

_WEIGHTS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
_HALF = {types_pb2.DT_BFLOAT16, types_pb2.DT_HALF}


def serve_graph(path):
    """The graph of a version with the tag `serve` alone, which servers load.

    Args:
        path: the directory that holds `saved_model.pb`.

    Raises:
        DecodeError: saved_model.pb is damaged.
        RuntimeError: it holds nothing to serve.
    """
    content = (pathlib.Path(path) / "saved_model.pb").read_bytes()
    for graph in saved_model_pb2.SavedModel.FromString(content).meta_graphs:
        if set(graph.meta_info_def.tags) == {"serve"}:
            return graph
    raise RuntimeError("saved_model.pb holds no graph with the tag 'serve', and no other tag")


def signature_defs(graph):
    """The signatures of a graph by name, without TensorFlow's own."""
    return {name: d for name, d in graph.signature_def.items() if not name.startswith("__")}


def call(signature, inputs):
    """`(feeds, fetches)` by the names of tensors, as `c_api.run` takes them, for inputs by their names."""
    feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
    return feeds, [info.name for info in signature.outputs.values()]


def failed_assertion(error):
    """What an assertion of the model says, in an error that TensorFlow raised; None where none did."""
    found = re.search(r"assertion failed: \[(.*)\]", getattr(error, "message", ""))
    return found and found[1].replace("] [", " ") + "."


def shape_of(info):
    """The sizes of a tensor, -1 where one is free; () where its rank is unknown."""
    return tuple(dim.size for dim in info.tensor_shape.dim)


def dtype_of(info):
    """The name of a tensor's type, such as "float" or "int64"."""
    return types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()


def count_operations(graph):
    """How often each operation occurs, in the graph and in its functions, by name."""
    return dict(sorted(collections.Counter(node.op for node in nodes_of(graph)).items()))


def computes_in_half_precision(graph):
    """Whether any operation computes in bfloat16 or float16."""
    return any(node.attr["T"].type in _HALF for node in nodes_of(graph) if "T" in node.attr)


def uses_weights(graph, tensor):
    """Whether a tensor of the graph, by its name, is computed from weights of the model."""
    nodes = reached(graph, [tensor], whole_functions=False)
    return any(node.op in _WEIGHTS for node in nodes)


def nodes_of(graph):
    """The nodes of a graph, and those of its functions, whether anything runs them or not."""
    yield from graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield from function.node_def


def functions_of(graph):
    """The functions of a graph by name."""
    return {function.signature.name: function for function in graph.graph_def.library.function}


def reached(graph, tensors, called=(), whole_functions=True):
    """The nodes on which tensors of the graph depend, those inside of functions among them.

    Args:
        tensors: names of tensors, such as "StatefulPartitionedCall:1".
        called: names of functions that are called from outside of the graph.
        whole_functions: whether a call depends on everything in the function, as what a request
            runs does; or only on what the output that is asked for is computed from.
    """
    functions = functions_of(graph)
    nodes = {name: {n.name: n for n in f.node_def} for name, f in functions.items()}
    nodes[None] = {node.name: node for node in graph.graph_def.node}
    waiting, seen = [(None, tensor) for tensor in tensors], set()
    waiting += [(name, node) for name in called for node in nodes.get(name, ())]
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
        for inner in called_functions(node, functions):
            body = functions[inner]
            inside = [n.name for n in body.node_def] if whole_functions else _returned(body, index)
            waiting += [(inner, tensor) for tensor in inside]


def called_functions(node, functions):
    """The names of the functions that a node calls."""
    values = [value.func.name for value in node.attr.values()]
    values += [f.name for value in node.attr.values() for f in value.list.func]
    return {name for name in (node.op, *values) if name in functions}


def _returned(body, index):
    """The tensors that a function returns as the output of its call with this number."""
    names = [argument.name for argument in body.signature.output_arg]
    number = int(index.rpartition(":")[2] or 0)  # "1" in the graph, "output:1" in a function
    return [body.ret[names[number]]] if number < len(names) else [*body.ret.values()]
