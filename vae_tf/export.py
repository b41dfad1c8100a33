"""The trained decoder as a SavedModel: versioned directories, two signatures, plain TensorFlow.

| signature         | inputs                                | outputs                          |
|-------------------|---------------------------------------|----------------------------------|
| `serving_default` | `z` (batch, latent_dim) float32       | `probabilities` (batch, …)       |
| `generate`        | `seed` (batch,) int64                 | `images` (batch, …), `z`         |
"""

import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf

from vae_tf.errors import check_new_path, check_positive_int, invalid
from vae_tf.seeding import row_seeds, seeded_normal


def export_decoder(model, out, version=None):
    """Write the decoder of `model` to `out/<version>/`.

    The SavedModel is written beside its place and renamed into it, so that a server never sees
    half of one. An image depends on its own seed, not on the batch it travels in.

    Args:
        model: a built `VAE`.
        out: the directory that holds the versions; its name is the model's name in TF Serving.
        version: a positive integer; by default one more than the largest there is, from 1.

    Returns:
        The path of the version.

    Raises:
        ValueError: that version exists, or `out` is not a directory.
    """
    model.assert_built("export_decoder")
    out = check_new_path("out", out)
    if out.exists() and not out.is_dir():
        raise invalid("out", "a directory", f"{str(out)!r}, which is a file")
    version = next_version(out) if version is None else check_positive_int("version", version)
    target = out / str(version)
    if target.exists():
        raise _exists(target)
    out.mkdir(parents=True, exist_ok=True)
    aside = pathlib.Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    try:
        _save(model, aside / "model")
        try:
            (aside / "model").rename(target)  # fails, and changes nothing, if another was quicker
        except OSError as error:
            raise _exists(target) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def versions(directory):
    """The version numbers in a directory of versions, in ascending order."""
    directory = pathlib.Path(directory)
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def next_version(directory):
    """One more than the largest version there is; 1 where there is none."""
    return max(versions(directory), default=0) + 1


def find_saved_model(path):
    """The SavedModel at `path`, or the newest of the versions that `path` holds; or None."""
    path = pathlib.Path(path)
    newest = [path / str(version) for version in versions(path)[-1:]]
    return next((p for p in [path, *newest] if (p / "saved_model.pb").is_file()), None)


def generate_from_saved_model(path, num, seed=None):
    """Draw `num` images from an exported decoder: those that `VAE.generate` draws for the seed.

    Args:
        path: a SavedModel, or a directory of versions, whose newest is taken.
        num, seed: as for `VAE.generate`.

    Returns:
        NumPy `(num, *image_shape)` in [0, 1].

    Raises:
        ValueError: there is no SavedModel, or it has no signature `generate`.
    """
    num = check_positive_int("num", num)
    found = find_saved_model(path)
    if found is None:
        raise invalid("path", "a SavedModel, or a directory of its versions", f"{str(path)!r}")
    signatures = tf.saved_model.load(str(found)).signatures
    if "generate" not in signatures:
        raise invalid(
            "path",
            "a SavedModel with the signature 'generate'",
            f"{str(found)!r} with {sorted(signatures)}",
        )
    seeds = row_seeds(seed, num)
    parts = [
        signatures["generate"](seed=tf.constant(seeds[i : i + 1000]))["images"]
        for i in range(0, num, 1000)
    ]
    return np.concatenate([part.numpy() for part in parts])


def _save(model, path):
    """Trace both signatures and write the SavedModel, with the decoder's weights and no more."""
    decoder, mean, latent_dim = model.decoder, model.likelihood.mean, model.latent_dim
    module = tf.Module()
    module.variables_of_decoder = [weight.value for weight in decoder.weights]

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec((None, latent_dim), tf.float32, "z")]
    )
    def decode(z):
        return {"probabilities": mean(decoder(z))}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.int64, "seed")])
    def generate(seed):
        z = seeded_normal(seed, latent_dim)
        return {"images": mean(decoder(z)), "z": z}

    signatures = {"serving_default": decode, "generate": generate}
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it would name the place aside, where the model will not stay
    try:
        tf.saved_model.save(module, str(path), signatures)
    finally:
        logger.setLevel(level)


def _exists(target):
    return invalid(
        "version",
        "a version that does not exist yet",
        f"{str(target)!r}",
        "Versions are never overwritten: leave the version out, and the next free one is taken.",
    )
