"""Checks of what an exported model declares: signatures, types and shapes, operations, warm-up requests.

A check is a function of a `Trial`. It gives `(problems, facts)`: sentences that say what is wrong, and
one that says what was seen.
"""

import collections

from vae_tf.export.graph import count_operations, dtype_of, shape_of
from vae_tf.export.signatures import BY_NAME, SIGNATURES, is_picture, signatures_of
from vae_tf.export.trial import ROWS
from vae_tf.export.warmup import WARMUP_BATCH_SIZES, WARMUP_FILE

CODES, IMAGES = ("z", "z_mean", "z_log_var"), ("images", "probabilities")  # of one shape each
_ENCODER = {row.name for row in SIGNATURES if row.of_encoder}
_DRAWING = {"generate", "generate_png", "score"}
_VERBS = ("takes", "gives")


def check_signatures(trial):
    """The signatures that must be there are, with the inputs and outputs of the table."""
    known = {row.name for row in trial.known}
    missing = [row.name for row in SIGNATURES if row.name in _expected(trial) - known]
    problems = [f"without {', '.join(missing)}: export it again with this vae_tf"] * bool(missing)
    for row in trial.known:
        given = trial.signatures[row.name]
        outputs = row.or_outputs if set(given.outputs) == set(row.or_outputs) else row.outputs
        table = (row.inputs, outputs)
        for verb, there, names in zip(_VERBS, (given.inputs, given.outputs), table, strict=True):
            if set(there) - set(trial.conditions if verb == "takes" else ()) != set(names):
                problems.append(
                    f"{row.name} {verb} {', '.join(sorted(there))}, not {', '.join(names)}"
                )
    return problems + _condition_problems(trial), ", ".join(sorted(trial.signatures))


def _expected(trial):
    """The names of the signatures that the model must have, by those that it has."""
    names = {row.name for row in trial.known}
    if trial.model is not None:
        with_encoder = bool(names & _ENCODER)
        return {row.name for row in signatures_of(trial.model, with_encoder)}
    expected = {"serving_default", "decode"}
    if names & _DRAWING:
        shapes = {shape_of(info)[1:] for _, key, info in tensors(trial) if key in IMAGES}
        expected |= {"generate", "generate_png"} if any(map(is_picture, shapes)) else {"generate"}
    return expected | ({"encode", "reconstruct"} if names & _ENCODER else set())


def _condition_problems(trial):
    """A condition is one input, and every signature takes it."""
    problems = []
    if len(trial.conditions) > 1:
        problems.append(f"several inputs as a condition: {', '.join(trial.conditions)}")
    for name in trial.conditions:
        takes = {row.name: name in trial.signatures[row.name].inputs for row in trial.known}
        without = [signature for signature in takes if not takes[signature]]
        first = next(signature for signature in takes if takes[signature])
        if without:
            problems.append(f"{', '.join(without)} without the {name} that {first} takes")
    return problems


def check_types(trial):
    """The table's types; one shape for all codes, one for all images, and one number a row for the rest."""
    problems, shapes = [], collections.defaultdict(set)
    for name, key, info in tensors(trial):
        expected = trial.expected_dtypes(key)
        if dtype_of(info) not in expected:
            problems.append(f"{key} of {name} is {dtype_of(info)}, not {' or '.join(expected)}")
        kind = "z" if key in CODES else "images" if key in IMAGES else key
        shapes[kind].add(shape_of(info)[1:])
    ranks = {"z": {1, 2, 3}, "images": {1, 2, 3}} | dict.fromkeys(trial.conditions, range(5))
    for kind, rows in shapes.items():
        if len(rows) > 1 or any(-1 in row or len(row) not in ranks.get(kind, {0}) for row in rows):
            problems.append(f"a row of {kind} has the shape {' or '.join(map(str, sorted(rows)))}")
    facts = [f"{kind} {next(iter(rows))}" for kind, rows in shapes.items()]
    return problems, f"a row: {', '.join(facts)}" if facts else ""


def check_operations(trial):
    """Every operation is TensorFlow's own, and none runs Python, reads files or keeps state.

    A model with another was not run, and there is nothing for the checks of what it computes to see.
    """
    problems = list(trial.operation_problems)
    if problems:
        problems[0] = f"not run, for {problems[0]}"
    num, version = len(count_operations(trial.graph)), trial.graph.meta_info_def.tensorflow_version
    return problems, f"{num} kinds, all TensorFlow's own; saved by TensorFlow {version}"


def check_warmup(trial):
    """The warm-up file has a request of every signature and batch size, and all of them run."""
    problems = list(trial.warmup_problems)
    if not trial.requests:
        return problems or [f"{WARMUP_FILE} holds no request"], ""
    sizes = {(name, len(value)) for name, feeds in trial.requests for value in feeds.values()}
    for row in trial.known:
        missing = [str(size) for size in WARMUP_BATCH_SIZES if (row.name, size) not in sizes]
        if missing:
            problems.append(f"no request of {row.name} with {', '.join(missing)} rows")
    reported = {name for name, batch in trial.failures if batch in ROWS}  # by the check of batching
    for (name, batch), text in trial.failures.items():
        if str(batch).startswith("request") and name not in reported:
            problems.append(text)
    rows = ", ".join(map(str, WARMUP_BATCH_SIZES))
    if trial.answer is None:
        return problems, ""
    return problems, f"{len(trial.requests)}: every signature with {rows} rows, and all run"


def tensors(trial):
    """`(signature, name, tensor)` of every input and output that the table knows."""
    for row in trial.known:
        signature, table = trial.signatures[row.name], BY_NAME[row.name]
        inputs, outputs = (*table.inputs, *trial.conditions), (*table.outputs, *table.or_outputs)
        for there, keys in ((signature.inputs, inputs), (signature.outputs, outputs)):
            yield from ((row.name, key, there[key]) for key in keys if key in there)
