"""A trained model written as a SavedModel, which plain TensorFlow loads and runs."""

import contextlib

import numpy as np
import tensorflow as tf

from vae_tf import files
from vae_tf.errors import (
    InvalidTypeError,
    InvalidValueError,
    check_new_path,
    check_positive_int,
    invalid,
    only_from,
)
from vae_tf.export import drawn
from vae_tf.export.signatures import signatures_of
from vae_tf.export.versions import LARGEST, next_version
from vae_tf.export.warmup import write_warmup
from vae_tf.random import row_seeds

_DISK_ERRORS = (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError)


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
    if version > LARGEST:
        raise invalid("version", f"a number of at most {LARGEST}", f"version={version}")
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


def generate_from_saved_model(path, num, seed=None, trust_model=False, **condition):
    """Draw `num` images from an exported model: those that `Model.generate` draws for the seed.

    Args:
        path: a SavedModel, or a directory of versions, whose newest is taken.
        num, seed: as for `Model.generate`.
        trust_model: run it whatever its operations are; see `vae_tf.export.operations`.
        condition: for a model with a condition, its value by its name, such as `label=3`: one for
            all images, or one for each.

    Returns:
        NumPy `(num, *image_shape)`.

    Raises:
        ValueError: there is no SavedModel, it has operations that are not allowed or no signature
            `generate`, or the condition is missing or does not fit.

    Example:
        >>> generate_from_saved_model("saved_models/mnist_z10", 2, seed=0).shape  # doctest: +SKIP
        (2, 28, 28, 1)
    """
    seeds = row_seeds(seed, num)
    parts = drawn.from_saved_model(path, "generate", seeds, condition, trust_model=trust_model)
    return np.concatenate(list(parts))


def _export(model, target, with_encoder, method):
    """Write a SavedModel with the weights that its signatures use, and no more."""
    if target.exists():
        raise FileExistsError(str(target))
    signatures = _traced(model, with_encoder, method)
    module, graphs = tf.Module(), [f.get_concrete_function().graph for f in signatures.values()]
    module.weights_used = [variable for graph in graphs for variable in graph.variables]
    target.parent.mkdir(parents=True, exist_ok=True)
    explained = _explained(model, "the SavedModel")
    quiet = only_from("WARNING", tf.get_logger())  # it would name the scratch path
    with files.aside(target) as scratch, explained, quiet:
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
    for row in rows:
        with _explained(model, f"the signature {row.name!r}"):
            functions[row.function].get_concrete_function()
    return {row.name: functions[row.function] for row in rows}


@contextlib.contextmanager
def _explained(model, what):
    """An error of the model's own code, which is compiled here for the first time, in our words."""
    try:
        yield
    except (InvalidValueError, InvalidTypeError, OSError):
        raise
    except _DISK_ERRORS as error:
        raise OSError(error.message) from error
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0].rstrip(".:")
        raise invalid(
            "model",
            f"a model that TensorFlow compiles: {what} does not go through",
            f"{type(model).__name__}, whose code raised {type(error).__name__}: {reason}",
            "Its methods must be written in keras.ops, and keep their weights in layers or variables "
            "that are attributes of the model.",
        ) from error
