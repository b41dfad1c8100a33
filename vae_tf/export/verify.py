"""The checks of an exported model: by its bytes, and by running it through TensorFlow's C library.

Its operations are judged first, and a model with one that is not allowed is not run. It runs in two fresh processes, which import neither TensorFlow's Python nor Keras nor `vae_tf`
(see `c_api`), on the examples of a `Trial`. A check looks at what is there. What is missing, or fails
to run, is reported once, by the one check that is about it.
"""

import dataclasses
import pathlib
import sys

from google.protobuf.message import DecodeError

from vae_tf.export import declared_checks, value_checks
from vae_tf.export.graph import count_operations
from vae_tf.export.trial import Trial
from vae_tf.export.versions import check_saved_model
from vae_tf.training.runs import load_run

_MOST_PROBLEMS = 5  # of a check, told in full


@dataclasses.dataclass(frozen=True)
class Check:
    """One row: what was checked, whether it holds, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found: its checks, each operation's number of uses, and who saved the model."""

    path: pathlib.Path
    checks: tuple
    operations: dict
    tensorflow_version: str

    @property
    def passed(self):
        return all(check.passed for check in self.checks)


def verify(path, run=None, seconds=300.0):
    """Check an exported model.

    Which signatures must be there follows from those that are: every model decodes; a model that
    draws images draws PNG files of them too, where they are pictures; a model that encodes also
    reconstructs. With `run`, they must be all those that its model has.

    Args:
        path: a SavedModel, or a directory of versions, whose newest is taken.
        run: the run directory whose model it should equal; None leaves this out.
        seconds: that loading and running it may take, in each of two processes.

    Returns:
        A `Verification`. A model that cannot be read has one check, which failed. One that does not
        load or end, or has an operation that is not allowed, has those checks that need no run.

    Raises:
        ValueError: there is no SavedModel, or `run` is no run.

    Example:
        >>> verify("saved_models/mnist_z10").passed  # doctest: +SKIP
        True
    """
    path = check_saved_model(path)
    model = None if run is None else load_run(run)[1]
    try:
        trial = Trial(path, model, seconds)
    except (DecodeError, RuntimeError, OSError) as error:
        return Verification(path, (Check(next(iter(CHECKS)), False, str(error)),), {}, "")
    checks = []
    for name, check in CHECKS.items():
        problems, facts = check(trial)
        if problems or facts:
            checks.append(Check(name, not problems, _told(problems) or facts))
    version = trial.graph.meta_info_def.tensorflow_version
    return Verification(path, tuple(checks), count_operations(trial.graph), version)


def _told(problems):
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else []))


def check_loading(trial):
    """It was loaded by TensorFlow's C library, without help from Python."""
    if trial.answer is None or trial.failure:
        return [trial.failure] if trial.failure else [], ""
    modules = set(trial.answer["modules"])
    helpers = sorted(modules & {"tensorflow", "keras", "vae_tf"})
    others = sorted(name for name in modules - sys.stdlib_module_names if name[0] != "_")
    name = f"TensorFlow {trial.answer['version']}'s C library"
    facts = f"{name}, in a process that imported the standard library and {', '.join(others)}"
    return [f"the process imported {', '.join(helpers)}"] if helpers else [], facts


CHECKS = {  # by name: a function of the trial, which gives problems and facts
    "loads by the C API": check_loading,
    "signatures": declared_checks.check_signatures,
    "dtypes and shapes": declared_checks.check_types,
    "batching": value_checks.check_batching,
    "seeds": value_checks.check_seeds,
    "values": value_checks.check_values,
    "signatures agree": value_checks.check_agreement,
    "equals the run": value_checks.check_run,
    "operations": declared_checks.check_operations,
    "warm-up requests": declared_checks.check_warmup,
}
