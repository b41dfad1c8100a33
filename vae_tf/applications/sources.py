"""What an application works on: a model, or where an engineer has it, in a SavedModel or behind a server.

Each is asked through the signatures of the export, so that all give the same.
"""

import pathlib

import numpy as np
import tensorflow as tf

from vae_tf.data import ANY_VALUE, check_images
from vae_tf.errors import InvalidTypeError, invalid
from vae_tf.evaluation.estimates import ROWS
from vae_tf.export.loaded import Loaded
from vae_tf.export.signatures import BY_NAME, input_specs, signatures_of
from vae_tf.models.arrays import check_codes, rows_of
from vae_tf.models.base import Model
from vae_tf.random import row_seeds
from vae_tf.serving.client import Client
from vae_tf.serving.rows import Floats


def source_of(source, model_name="vae", trust_model=False):
    """The `Source` of what a user names.

    Args:
        source: a `vae_tf.Model`; the path of a run, of a SavedModel, or of a directory of its versions;
            or a server's address, "http://host:8501" or "grpc://host:8500".
        model_name: the model's name on a server.
        trust_model: run a SavedModel whatever its operations are.

    Raises:
        ValueError, TypeError: it is none of these.

    Example:
        >>> source_of("saved_models/mnist_z10").decode(np.zeros((2, 10))).shape  # doctest: +SKIP
        (2, 28, 28, 1)
    """
    if isinstance(source, (Source, Model)):
        return source if isinstance(source, Source) else Source(_OfModel(source))
    if not isinstance(source, (str, pathlib.Path)):
        expected = "a vae_tf.Model, a path, or a server's address"
        raise invalid("source", expected, type(source).__name__, kind=InvalidTypeError)
    if "://" in str(source):
        return Source(_OfServer(str(source), model_name))
    if not pathlib.Path(source).exists():
        expected = "the path of a run directory or of a SavedModel, or a server's address"
        raise invalid("source", expected, f"{str(source)!r}, which does not exist")
    if (pathlib.Path(source) / "config.json").is_file():
        from vae_tf.training import runs

        return Source(_OfModel(runs.load_run(source)[1], str(source)))
    return Source(_OfSavedModel(source, trust_model))


class Source:
    """A model as applications ask it: arrays in, arrays out, a batch at a time.

    Attributes:
        name: for messages and pictures.
        model: the `vae_tf.Model`; None of a SavedModel or a server.
        image_shape, latent_shape: without the batch; None where a server does not say.
        condition: the model's `Condition`, or None.

    The methods' `condition` is one for all images or one for each, of a model that has one. Their
    `progress(done, total)` is called after each batch.
    """

    def __init__(self, engine):
        self._engine, self.name, self.model = engine, engine.name, engine.model
        self.image_shape, self.latent_shape = engine.image_shape, engine.latent_shape
        self.condition = engine.condition

    def has(self, call):
        """Whether it has a call: "encode", "decode", "reconstruct", "score", "posterior" or "model".

        Of a server that is known only when it is asked: it counts as having all but "model".
        """
        if call == "model":
            return self.model is not None
        if call == "posterior":
            return self.has("encode") and "z_log_var" in self._engine.outputs("encode")
        return call in self._engine.signatures

    def needs(self, call, application):
        """Raise unless it has a call, which an application needs."""
        if self.has(call):
            return
        expected, hint = f"one that has '{call}', for '{application}'", ""
        if call == "model":
            expected = f"a run directory or a vae_tf.Model, for '{application}'"
        elif call == "posterior" and self.has("encode"):
            expected = f"a model with a Gaussian q(z|x), for '{application}'"
        elif self.model is None:
            hint = "A model is exported with its encoder by: vae-tf export RUN --with-encoder."
        raise invalid("source", expected, self.name, hint, kind=InvalidTypeError)

    def encode(self, x, condition=None, progress=None):
        """The codes of images, `(N, *latent_shape)`: the mean of q(z|x) where there is one."""
        found = self._of_images("encode", x, condition, progress)
        return found["z_mean"] if "z_mean" in found else found["z"]

    def posterior(self, x, condition=None, progress=None):
        """q(z|x) of images, a normal: `(z_mean, z_log_var)`."""
        self.needs("posterior", "posterior")
        found = self._of_images("encode", x, condition, progress)
        self.needs("posterior", "posterior")  # of a server it is known only now
        return found["z_mean"], found["z_log_var"]

    def decode(self, z, condition=None, progress=None):
        """The means of p(x|z) for codes `(N, *latent_shape)`: images."""
        self.needs("decode", "decode")
        columns = {"z": check_codes(z, self.latent_shape)}
        return self._in_batches("decode", columns, condition, progress)["probabilities"]

    def reconstruct(self, x, condition=None, progress=None):
        """Images to their reconstructions through the code, without noise."""
        return self._of_images("reconstruct", x, condition, progress)["images"]

    def score(self, x, seed=0, condition=None, progress=None):
        """The ELBO of each image in nats, at one draw of z that `seed` fixes: `(N,)`."""
        seeds = {"seed": row_seeds(seed, len(x))}
        return self._of_images("score", x, condition, progress, seeds)["elbo"]

    def checked(self, x, argument="x"):
        """Images as the model takes them, NumPy; or the error that says what is wrong with them."""
        if self.model is not None:
            return self.model.checked(np.asarray(x), argument)
        x = check_images(x, argument, ANY_VALUE, self.image_shape)
        if self.image_shape is not None and x.shape[1:] != self.image_shape:
            expected = f"images of shape {rows_of(self.image_shape)}, as {self.name} takes them"
            raise invalid(argument, expected, f"shape {x.shape}")
        return x

    def _of_images(self, signature, x, condition, progress, others=None):
        self.needs(signature, signature)
        columns = {"images": Floats(self.checked(x)), **(others or {})}
        return self._in_batches(signature, columns, condition, progress)

    def _in_batches(self, signature, columns, condition, progress):
        """The outputs of a signature by name, for columns by name."""
        num = len(next(iter(columns.values())))
        columns = columns | self._condition_column(condition, num)
        parts = []
        for start in range(0, num, ROWS):
            rows = slice(start, start + ROWS)
            parts.append(
                self._engine.call(signature, {name: c[rows] for name, c in columns.items()})
            )
            if progress is not None:
                progress(min(start + ROWS, num), num)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _condition_column(self, condition, num):
        if self.condition is not None:
            return {self.condition.name: self.condition.rows(condition, num)}
        if condition is None:
            return {}
        if not self._engine.says_condition:
            value = np.asarray(condition)
            return {"label": np.repeat(value[None], num, axis=0) if value.ndim == 0 else value}
        expected = f"None: {self.name} has no condition"
        raise invalid("condition", expected, "one", kind=InvalidTypeError)


class _OfModel:
    """A model's signatures, as the export would have them."""

    says_condition = True

    def __init__(self, model, name=None):
        model.assert_built("applications")
        self.model, self.name = model, name or f"a {type(model).__name__}"
        self.image_shape, self.latent_shape = tuple(model.image_shape), tuple(model.latent_shape)
        self.condition = model.condition
        self.signatures = {row.name for row in signatures_of(model, with_encoder=True)}
        self._functions = {}

    def _function(self, signature):
        if signature not in self._functions:
            traced = BY_NAME[signature].traced(self.model)
            self._functions[signature] = traced.get_concrete_function()
        return self._functions[signature]

    def outputs(self, signature):
        return set(self._function(signature).structured_outputs)

    def call(self, signature, columns):
        specs = input_specs(BY_NAME[signature], self.model)
        tensors = [tf.constant(columns[name], dtype) for name, (_, dtype) in specs.items()]
        outputs = self._function(signature)(*tensors)
        return {name: output.numpy() for name, output in outputs.items()}


class _OfSavedModel:
    """The signatures of an exported model."""

    model, says_condition = None, True

    def __init__(self, path, trust_model):
        self.loaded = Loaded(path, trust_model)
        self.name, self.signatures = str(path), set(self.loaded.signatures)
        self.loaded.check_has("decode")
        specs = self.loaded.inputs("decode")
        self.latent_shape = tuple(specs["z"].shape[1:])
        conditions = self.loaded.conditions("decode", ("z",))
        self.condition = conditions[0] if conditions else None
        decoded = self.loaded.signatures["decode"].structured_outputs["probabilities"]
        self.image_shape = tuple(decoded.shape[1:])

    def outputs(self, signature):
        return set(self.loaded.signatures[signature].structured_outputs)

    def call(self, signature, columns):
        return self.loaded.call(signature, columns)


class _OfServer:
    """A served model, which says what it has when it is asked."""

    model = image_shape = latent_shape = condition = None
    says_condition = False
    signatures = ("encode", "decode", "reconstruct", "score")

    def __init__(self, address, model_name):
        self.client, self.name = Client(address, model_name), address
        self._answered = {}  # names of the outputs of each signature that was asked

    def outputs(self, signature):
        return self._answered.get(signature, {"z_mean", "z_log_var"})

    def call(self, signature, columns):
        inputs = {name: np.asarray(column) for name, column in columns.items()}
        outputs = self.client.predict(signature, **inputs)
        single = {"encode": "z", "decode": "probabilities", "reconstruct": "images"} | {
            "score": "elbo"
        }
        named = outputs if isinstance(outputs, dict) else {single[signature]: outputs}
        self._answered[signature] = set(named)
        return named
