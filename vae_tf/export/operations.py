"""Which operations a served model may hold: the one list, and the judgement of a graph by it.

An operation is allowed where all that it can do is compute. That is so for every operation of
TensorFlow's own that keeps no state, takes and gives numbers, and is told neither a text (which may
name a file, a device or a library) nor a function. The others are allowed by their names, below:
those on texts and pictures that touch nothing but them, calls of the graph's own functions, which are
judged too, lists, variables and tables that are read. What fills variables and tables may be in a
graph, for loading runs it; what writes a checkpoint may be in it where nothing that is run reaches it.

So a model may hold `tf.io.decode_png`, tables of its own values, `tf.map_fn` and `tf.while_loop`. It
may not hold `tf.py_function`, whose Python is not in the file, tables that are filled from files,
stateful noise, or what is compiled by XLA. The graph is read, and nothing of it is loaded or run.
"""

import collections
import functools
import graphlib
import re

from google.protobuf.message import DecodeError
from tensorflow.core.framework import op_def_pb2, types_pb2

from vae_tf.errors import as_typed, invalid
from vae_tf.export import c_api
from vae_tf.export.graph import (
    called_functions,
    count_operations,
    functions_of,
    nodes_of,
    reached,
    serve_graph,
    signature_defs,
)

_TEXTS = """
    AsString DecodeBase64 DecodeCSV DecodeCompressed DecodeJSONExample DecodePaddedRaw DecodeRaw
    EncodeBase64 Fingerprint ParseExample ParseExampleV2 ParseSequenceExample ParseSequenceExampleV2
    ParseSingleExample ParseSingleSequenceExample ParseTensor ReduceJoin RegexFullMatch RegexReplace
    SerializeTensor StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin StringLength
    StringLower StringNGrams StringSplit StringSplitV2 StringStrip StringToHashBucket
    StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
    UnicodeDecodeWithOffsets UnicodeEncode UnicodeTranscode UnsortedSegmentJoin
"""
_PICTURES = """
    DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeWav DecodeWebP
    EncodeJpeg EncodeJpegVariableQuality EncodePng EncodeWav ExtractJpegShape
"""
_NUMBERS = """
    CheckNumerics DataFormatDimMap DataFormatVecPermute DenseToDenseSetOperation
    DenseToSparseSetOperation Einsum ExtractGlimpse ExtractGlimpseV2 GatherNd
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 PreventGradient RaggedCross
    RaggedTensorToTensor ScaleAndTranslate ScatterNd ScatterNdNonAliasingAdd SparseToSparseSetOperation
    StatelessRandomGetAlg TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub
    TensorScatterUpdate UniformQuantizedConvolution UniformQuantizedConvolutionHybrid
"""  # told a text that is no more than a choice, or said to keep a state that they do not
_CALLS = """
    Assert Case Enter If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile
    While
"""
_LISTS = """
    EmptyTensorList RaggedTensorFromVariant RaggedTensorToVariant TensorListConcat TensorListConcatLists
    TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListPopBack TensorListPushBack TensorListPushBackBatch TensorListReserve
    TensorListResize TensorListScatter TensorListScatterIntoExistingList TensorListScatterV2
    TensorListSetItem TensorListSplit TensorListStack
"""
_READ = """
    DisableCopyOnRead HashTableV2 LookupTableFindV2 LookupTableSizeV2 ReadVariableOp ResourceGather
    ResourceGatherNd VarHandleOp VarIsInitializedOp VariableShape
"""
ALLOWED = frozenset((_TEXTS + _PICTURES + _NUMBERS + _CALLS + _LISTS + _READ).split())

_FILLING = {"AssignVariableOp", "InitializeTableV2", "LookupTableImportV2"}  # not in a request
_RESTORING = {"RestoreV2"}  # where the variables are restored, and nowhere else
_SAVING = {"MergeV2Checkpoints", "SaveV2", "ShardedFilename"}  # in nothing that is run
_LOOPS = {"While", "StatelessWhile", "NextIteration"}

_OBJECTIONS = {  # why an operation with such a word in its name should not be served
    "runs Python": "PyFunc",
    "needs TF Serving's XLA flag": "Xla|TPU",
    "reads or writes files": "File|Directory|Reader|Save|Restore|Checkpoint|Summary|LMDB|Sql|"
    "LoadAndRemap|LoadDataset|(CSV|Record|TextLine|FixedLength.*|Snapshot)Dataset",
}
_XLA_MARKS = ("_XlaMustCompile", "_XlaCompile", "_xla_compile_id")
_NO_NUMBERS = {types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}
_MOST_OPERATIONS = 10**6  # of a graph with its functions put where they are called


def operation_problems(graph):
    """Why a graph should not be run or served: a list of sentences, empty for a good one.

    Args:
        graph: as `graph.serve_graph` gives it.
    """
    own, functions, places = _own(), functions_of(graph), _places(graph)
    problems = []
    for operation in count_operations(graph):
        if operation in functions and operation not in own:
            continue  # a call, of what is judged itself
        if objection := _objection(operation, own.get(operation), places):
            problems.append(f"{operation} {objection}")
    parts = [*nodes_of(graph), *functions.values()]
    if any(
        part.attr[m].b or part.attr[m].s for part in parts for m in _XLA_MARKS if m in part.attr
    ):
        problems.append("a function compiled by XLA needs TF Serving's XLA flag")
    if too_many := _too_many(graph):
        problems.append(too_many)
    return problems


def check_operations(path, trust_model=False):
    """Raise `ValueError` if the SavedModel at `path` is damaged or, unless it is trusted, not allowed."""
    try:
        problems = operation_problems(serve_graph(path))
    except (DecodeError, RuntimeError) as error:
        raise invalid("path", "a SavedModel that loads", f"{str(path)!r}: {error}") from error
    if problems and not trust_model:
        expected = "a SavedModel that does no more than compute"
        raise invalid("path", expected, f"{str(path)!r}: {'; '.join(problems)}", trust_hint())


def trust_hint():
    """What to do about a model that is refused."""
    return f"If you trust who made it, {as_typed('trust_model', True)} runs it all the same."


def has_loops(graph):
    """Whether running the graph may never end: all else that is allowed ends."""
    return not _LOOPS.isdisjoint(count_operations(graph))


@functools.cache
def _own():
    """TensorFlow's own operations by name."""
    registry = c_api.Library(c_api.library_path()).registered_operations()
    return {operation.name: operation for operation in op_def_pb2.OpList.FromString(registry).op}


def _places(graph):
    """The names of the operations that are run: by requests, by loading, and where variables are restored."""
    requests = [i.name for s in signature_defs(graph).values() for i in s.outputs.values()]
    loading = [i.name for s in graph.signature_def.values() for i in s.outputs.values()]
    for collection in ("saved_model_main_op", "legacy_init_op"):
        loading += graph.collection_def[collection].node_list.value
    restoring = [graph.saver_def.restore_op_name]
    functions = graph.object_graph_def.concrete_functions  # some of them run when Python loads it
    return {
        "requests": {node.op for node in reached(graph, requests)},
        "loading": {node.op for node in reached(graph, loading, functions)},
        "restoring": {node.op for node in reached(graph, restoring)},
    }


def _objection(operation, definition, places):
    """Why an operation should not be in a served model, or None."""
    if definition is None:
        return "is not TensorFlow's own"
    if operation in ALLOWED or _is_in_its_place(operation, places):
        return None
    for why, words in _OBJECTIONS.items():
        if re.search(words, operation):
            return why
    if definition.is_stateful:
        return "has state: what it draws, keeps or writes does not follow from its inputs"
    return None if _only_computes(definition) else "may do more than compute"


def _is_in_its_place(operation, places):
    """Whether it is one of those that fill, restore or save, where that is its business."""
    not_in = (
        (_FILLING, ("requests",)),
        (_RESTORING, ("requests", "loading")),
        (_SAVING, ("requests", "loading", "restoring")),
    )
    return any(
        operation in kind and all(operation not in places[place] for place in where)
        for kind, where in not_in
    )


def _only_computes(definition):
    """Whether it takes and gives numbers, and is told neither a text nor a function."""
    tensors = [*definition.input_arg, *definition.output_arg]
    told = [
        attr.type.removeprefix("list(").rstrip(")")
        for attr in definition.attr
        if not attr.allowed_values.list.s
    ]
    numbers = not any(tensor.type in _NO_NUMBERS or tensor.is_ref for tensor in tensors)
    return numbers and not {"string", "func"} & {*told} and not definition.name.startswith("_")


def _too_many(graph):
    """A sentence where the functions call themselves, or each other more often than can be run; or None."""
    functions = functions_of(graph)
    calls = {
        name: collections.Counter(
            called for node in function.node_def for called in called_functions(node, functions)
        )
        for name, function in functions.items()
    }
    sizes = {}
    try:
        for name in graphlib.TopologicalSorter(calls).static_order():
            inside = sum(sizes[called] * times for called, times in calls[name].items())
            sizes[name] = min(len(functions[name].node_def) + inside, _MOST_OPERATIONS + 1)
    except graphlib.CycleError as error:
        return f"the function {error.args[1][0]} calls itself"
    total = sum(
        1 + sum(sizes[called] for called in called_functions(node, functions))
        for node in graph.graph_def.node
    )
    if max([total, *sizes.values()]) > _MOST_OPERATIONS:
        return f"its functions call each other until more than {_MOST_OPERATIONS:,} operations run"
    return None
