"""A trained model written as a SavedModel, which plain TensorFlow loads and runs."""

import contextlib

import numpy as np
import tensorflow as tf

from vae_tf import files
from vae_tf.errors import InvalidTypeError, check_new_path, check_positive_int, invalid
from vae_tf.export.signatures import signatures_of
from vae_tf.export.versions import check_saved_model, next_version
from vae_tf.export.warmup import write_warmup
from vae_tf.models.condition import Condition
from vae_tf.random import row_seeds

_ROWS = 1000  # of a batch of `generate_from_saved_model`


def export_decoder(model, out, version=None, with_encoder=False):
    """Write the decoder of `model` to `out/<version>/`.

    The SavedModel is written beside its place and renamed into it, so that a server never sees
    half of one. An image depends on its own seed, not on the batch it travels in. Which signatures
    are written follows from what the model has: see `vae_tf.export.signatures`.

    Args:
        model: a built `vae_tf.Model`, such as a `VAE`.
        out: the directory that holds the versions; its name is the model's name in TF Serving.
        version: a positive integer; by default one more than the largest there is, from 1.
        with_encoder: also write the signatures `encode`, `reconstruct` and `score`.

    Returns:
        The path of the version.

    Raises:
        ValueError: that version exists, or `out` is not a directory.
        TypeError: the model has no decoder.

    Example:
        >>> export_decoder(vae, "saved_models/digits")  # doctest: +SKIP
        PosixPath('saved_models/digits/1')
    """
    out = check_new_path("out", out)
    if out.exists() and not out.is_dir():
        raise invalid("out", "a directory", f"{str(out)!r}, which is a file")
    version = next_version(out) if version is None else check_positive_int("version", version)
    target = out / str(version)
    try:
        return _export(model, target, with_encoder, "export_decoder")
    except FileExistsError as error:
        raise invalid(
            "version",
            "a version that does not exist yet",
            f"{str(target)!r}",
            "Versions are never overwritten: leave the version out, and the next free one is taken.",
        ) from error


def export_saved_model(model, path, with_encoder=True):
    """Write a SavedModel with the signatures of `export_decoder` to `path` itself, without versions.

    Args:
        model, with_encoder: as for `export_decoder`.
        path: a directory that does not exist yet.

    Returns:
        The path.

    Raises:
        ValueError: `path` exists.
        TypeError: the model has no decoder.
    """
    path = check_new_path("path", path)
    try:
        return _export(model, path, with_encoder, "export")
    except FileExistsError as error:
        raise invalid("path", "a path that does not exist yet", f"{str(path)!r}") from error


def generate_from_saved_model(path, num, seed=None, **condition):
    """Draw `num` images from an exported model: those that `Model.generate` draws for the seed.

    Args:
        path: a SavedModel, or a directory of versions, whose newest is taken.
        num, seed: as for `Model.generate`.
        condition: for a model with a condition, its value by its name, such as `label=3`: one for
            all images, or one for each.

    Returns:
        NumPy `(num, *image_shape)`.

    Raises:
        ValueError: there is no SavedModel, it has no signature `generate`, or the condition is
            missing or does not fit.

    Example:
        >>> generate_from_saved_model("saved_models/mnist_z10", 2, seed=0).shape  # doctest: +SKIP
        (2, 28, 28, 1)
    """
    num = check_positive_int("num", num)
    seed = None if seed is None else check_positive_int("seed", seed, minimum=0)
    path = check_saved_model(path)
    signatures = tf.saved_model.load(str(path)).signatures
    if "generate" not in signatures:
        expected = "a SavedModel with the signature 'generate'"
        raise invalid("path", expected, f"{str(path)!r} with {sorted(signatures)}")
    generate = signatures["generate"]
    inputs = {"seed": row_seeds(seed, num)} | _condition_rows(generate, condition, num)
    parts = []
    for start in range(0, num, _ROWS):
        rows = {name: tf.constant(value[start : start + _ROWS]) for name, value in inputs.items()}
        parts.append(generate(**rows)["images"].numpy())
    return np.concatenate(parts)


def _export(model, target, with_encoder, method):
    """Write a SavedModel with the weights that its signatures use, and no more."""
    if target.exists():
        raise FileExistsError(str(target))
    signatures = _traced(model, with_encoder, method)
    module, graphs = tf.Module(), [f.get_concrete_function().graph for f in signatures.values()]
    module.weights_used = [variable for graph in graphs for variable in graph.variables]
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.aside(target) as scratch:
        with _without_info_messages():
            tf.saved_model.save(module, str(scratch), signatures)
        write_warmup(scratch, signatures)
    return target


def _traced(model, with_encoder, method):
    """The signatures that the model has, as `tf.function`s by name."""
    if hasattr(model, "assert_built"):
        model.assert_built(method)
    rows = signatures_of(model, with_encoder)
    if not rows:
        expected = "a model with `decode` and a `likelihood`, such as a vae_tf.VAE"
        raise invalid("model", expected, type(model).__name__, kind=InvalidTypeError)
    if with_encoder and not any(row.of_encoder for row in rows):
        raise invalid("with_encoder", "False: this model has no `encode`", "with_encoder=True")
    functions = {row.function: row.traced(model) for row in rows}  # two names may share one
    return {row.name: functions[row.function] for row in rows}


@contextlib.contextmanager
def _without_info_messages():
    """TensorFlow would name the scratch path, where the model does not stay."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _condition_rows(signature, given, num):
    """The condition's value for each row, from one for all rows or one for each.

    Args:
        signature: a signature of a loaded SavedModel.
        given: values by name.
        num: how many rows.
    """
    specs = dict(signature.structured_input_signature[1])
    specs.pop("seed")
    if given.keys() != specs.keys():
        expected = f"a value of {', '.join(specs)}" if specs else "none: this model takes none"
        raise invalid("condition", expected, ", ".join(sorted(given)) or "none")
    conditions = [Condition(key, tuple(s.shape[1:]), s.dtype.name) for key, s in specs.items()]
    return {each.name: each.rows(given[each.name], num) for each in conditions}
