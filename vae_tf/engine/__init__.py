"""How a model is trained: the compiled loop, the order of the data, callbacks, checkpoints.

A model sees one class of this folder, `trainer.Trainer`, and the trainer sees of a model what
`models.base.Model` says. What is private of Keras and is touched here: `make_train_function`,
`make_test_function`, `train_function`, `test_function`, `_make_function`, `_clear_losses`,
`_maybe_symbolic_build`, `_eval_epoch_iterator`, `_size` of the data adapter, `_assert_compile_called`,
`_metrics`, `optimizer._clip_gradients`.

The tricks, each with what it gained on two cores (`benchmarks/RESULTS.md`):

- many steps in one XLA loop, on rows gathered at once (`loop`): a third of Keras's own `fit`;
- noise drawn ahead for all steps of a loop (`step.Step.draw`): 2.5 %;
- only the weights wait for the last gradient, Adam's moments do not (`update.hold_back`): 5 %;
- the gradient's norm in some steps only, a condition for each gradient (`update.norm`): 1.5 % and 15 %;
- 512-bit vectors (below): 2 %.
"""

import importlib.metadata
import os

# XLA vectorises for 256 bits unless told otherwise; 512 are faster where the processor has them, the
# same elsewhere, and change no result. XLA reads the flag when it first compiles. Only for versions
# that were tried: XLA aborts on a flag that it does not know.
_flags = os.environ.get("XLA_FLAGS", "")
try:
    _tensorflow = importlib.metadata.version("tensorflow").split(".")[:2]
except importlib.metadata.PackageNotFoundError:  # a build under another name
    _tensorflow = []
if "prefer_vector_width" not in _flags and ["2", "20"] <= _tensorflow <= ["2", "21"]:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_cpu_prefer_vector_width=512".strip()
