"""An exported model, judged, and then run on examples in two fresh processes, for the checks to look at."""

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from vae_tf.export.c_api import library_path, run_in_fresh_process
from vae_tf.export.comparison import pixels_of
from vae_tf.export.graph import call, dtype_of, serve_graph, shape_of, signature_defs
from vae_tf.export.operations import operation_problems
from vae_tf.export.signatures import DTYPES, SIGNATURES
from vae_tf.export.warmup import WARMUP_FILE, inputs_of, warmup_requests
from vae_tf.random import row_seeds

SEED = 1  # of the examples, and none of the extreme seeds
ROWS = {64: range(64), 7: [5, 3, 8, 0, 61, 1, 2], 1: [3]}  # of the same 64, at several places
ROWS_AGAIN = [63, 3, 40, 3, 7]  # in the second process
_EXTREME_SEEDS = np.array([0, -1, -(2**63), 2**63 - 1])
_MOST_RECORDS = 1000  # of a warm-up file: TF Serving refuses more


class Trial:
    """The model that is checked, and the results of running it in two processes.

    A model with an operation that is not allowed is not run.

    Args:
        path: the directory of a SavedModel.
        model: the Keras model that it should equal, or None.
        seconds: until one of the processes is killed.

    Attributes:
        graph, signatures: what saved_model.pb declares.
        operation_problems: why it may not be run; empty if it was.
        conditions: the names of the inputs that are a model's condition: one, or none.
        requests, warmup_problems: of the warm-up file.
        outputs, failures: by `(signature, batch)`, what a run gave, or why it failed. `batch` is
            the number of rows, or a word for what they are.
        answer: what else the first process said of itself, see `c_api.run`; None if it said nothing.
        failure: why it was not loaded, or did not end; "" if it was and did.

    Raises:
        DecodeError, RuntimeError, OSError: saved_model.pb cannot be read.
    """

    def __init__(self, path, model=None, seconds=300.0):
        self.path, self.model, self.graph = path, model, serve_graph(path)
        self._seconds, self.answer, self.failure = seconds, None, ""
        self.operation_problems = operation_problems(self.graph)
        self.signatures = signature_defs(self.graph)
        self.conditions = self._conditions()
        self.requests, self.warmup_problems = _usable_requests(path, self.signatures)
        self.outputs, self.failures = {}, {}
        if not self.operation_problems:
            try:
                self.answer = self._run(self._first_runs())
                self._run(self._second_runs())
            except RuntimeError as error:
                self.failure = str(error)

    @property
    def known(self):
        """The rows of the table of signatures that the model has."""
        return [row for row in SIGNATURES if row.name in self.signatures]

    def together(self, name):
        """The outputs for all 64 rows; nothing where that run failed, or did not take place."""
        return self.outputs.get((name, 64), {})

    def feeds(self, name, rows):
        """Inputs for a signature: rows of the same 64 each time."""
        inputs = self.signatures[name].inputs.items()
        return {key: self._examples(key, info)[list(rows)] for key, info in inputs}

    def expected_dtypes(self, key):
        """The types that an input or output of this name may have."""
        return ("float", "int64") if key in self.conditions else (DTYPES.get(key, "float"),)

    def _conditions(self):
        """The inputs that signatures have besides all of those in the table."""
        inputs = [(set(self.signatures[row.name].inputs), set(row.inputs)) for row in self.known]
        return sorted(set().union(*(there - table for there, table in inputs if there >= table)))

    def _usable(self):
        """The signatures that can be run on examples: with the table's inputs, types and shapes."""
        return [row for row in self.known if self._has_inputs_of(row)]

    def _has_inputs_of(self, row):
        inputs = self.signatures[row.name].inputs
        return set(inputs) - set(self.conditions) == set(row.inputs) and all(
            -1 not in shape_of(info)[1:]
            and dtype_of(info) in self.expected_dtypes(key)
            and self._examples(key, info).shape[1:] == shape_of(info)[1:]
            for key, info in inputs.items()
        )

    def _first_runs(self):
        runs = {(name, f"request {i}"): feeds for i, (name, feeds) in enumerate(self.requests)}
        for row in self._usable():
            runs |= {(row.name, num): self.feeds(row.name, rows) for num, rows in ROWS.items()}
            if "seed" in row.inputs:
                feeds = self.feeds(row.name, range(len(_EXTREME_SEEDS)))
                runs[row.name, "extreme seeds"] = feeds | {"seed": _EXTREME_SEEDS}
        return runs

    def _second_runs(self):
        usable = {row.name: row for row in self._usable()}
        seeded = [name for name, row in usable.items() if "seed" in row.inputs]
        runs = {(name, "another process"): self.feeds(name, ROWS_AGAIN) for name in seeded}
        z = self.together("generate").get("z")
        decoder = next((name for name in ("decode", "serving_default") if name in usable), None)
        if z is not None and decoder:
            runs[decoder, "z of generate"] = self.feeds(decoder, range(64)) | {"z": z}
        return runs

    def _run(self, runs):
        calls = [call(self.signatures[name], feeds) for (name, _), feeds in runs.items()]
        answer = run_in_fresh_process(library_path(), self.path, calls, self._seconds)
        if answer["error"]:
            raise RuntimeError(answer["error"])
        for key, outcome in zip(runs, answer["outcomes"], strict=True):
            self._keep(key, outcome, {np.shape(value)[:1] for value in runs[key].values()})
        return answer

    def _keep(self, key, outcome, num):
        """Keep the outcome of a run: arrays, each of `num` rows, or a message."""
        failed, outputs = isinstance(outcome, str), self.signatures[key[0]].outputs
        arrays = {} if failed else {name: outcome[i.name] for name, i in outputs.items()}
        wrong = [f"{name} of shape {a.shape}" for name, a in arrays.items() if {a.shape[:1]} != num]
        if wrong or failed:
            self.failures[key] = f"{key[0]}, {key[1]}: {', '.join(wrong) or outcome}"
        else:
            self.outputs[key] = {name: pixels_of(array) for name, array in arrays.items()}

    def _examples(self, key, info):
        """64 rows of an input."""
        shape, random = (64, *shape_of(info)[1:]), np.random.default_rng(SEED)
        if key == "seed":
            return row_seeds(SEED, 64)
        if key == "z":
            return random.standard_normal(shape, "float32")
        if key == "images":
            return random.random(shape, "float32")
        return self._examples_of_condition(key, shape, dtype_of(info))

    def _examples_of_condition(self, key, shape, dtype):
        """Random values where the model says what they may be; else zeros, which every type has."""
        random, dtype = np.random.default_rng(SEED), "int64" if dtype == "int64" else "float32"
        condition = None if self.model is None else self.model.condition
        if condition is None or condition.name != key:
            return np.zeros(shape, dtype)
        if condition.num_classes is not None:
            return random.integers(0, condition.num_classes, shape).astype(dtype)
        return random.random(shape).astype(dtype)


def _usable_requests(path, signatures):
    """`(requests, problems)` of the warm-up file: each request a signature's name and its inputs."""
    if not (path / WARMUP_FILE).is_file():
        return [], [f"no {WARMUP_FILE}: export it again with this vae_tf"]
    try:
        recorded = warmup_requests(path)
    except (tf.errors.OpError, DecodeError) as error:
        return [], [f"{WARMUP_FILE} is damaged: {str(error).splitlines()[0]}"]
    many = f"{len(recorded)} records: TF Serving takes no more than {_MOST_RECORDS}"
    problems = [many] if len(recorded) > _MOST_RECORDS else []
    requests = [_request(request, signatures) for request in recorded[:_MOST_RECORDS]]
    bad = [str(i) for i, request in enumerate(requests) if request is None]
    if bad:
        problems.append(f"no requests to a signature: records {', '.join(bad)}")
    return [request for request in requests if request is not None], problems


def _request(request, signatures):
    """A recorded request's signature and inputs; None if there are no such, each with its rows."""
    name = request.model_spec.signature_name or "serving_default"
    if name not in signatures or set(request.inputs) != set(signatures[name].inputs):
        return None
    try:
        inputs = inputs_of(request)
    except (TypeError, ValueError):
        return None
    return (name, inputs) if all(array.ndim for array in inputs.values()) else None
