"""The signatures of an exported model: one table, from which a model is exported and an export checked.

A signature is written where the model has what it needs. Every input and output has a free batch
dimension in front, and a row of the outputs depends on the same row of the inputs alone, so that a
server may put requests together. Images have the shape that the model was built with. A model with a
condition has it as one more input of each signature, under its own name. Numbers are float32 or
int64, whatever type the model computes in: a client needs to know no other.
"""

import collections.abc
import dataclasses

import tensorflow as tf
from keras import ops

from vae_tf.distributions import Normal
from vae_tf.errors import invalid
from vae_tf.layers import PerSeed, drawing
from vae_tf.models.arrays import first
from vae_tf.models.base import Model

DTYPES = {"seed": "int64", "png_bytes": "string"}  # every other input and output is float32
_PNG_CHANNELS = (1, 3, 4)  # grey, colour, colour with transparency


@dataclasses.dataclass(frozen=True)
class Signature:
    """A row of the table.

    Attributes:
        name: of the signature.
        needs: what a model must have: names of its methods and attributes, and "picture" for
            images that a PNG file can hold.
        inputs: the names of its inputs, without the model's condition.
        outputs: the names of its outputs.
        function: computes it: `function(model, condition, *inputs)` gives tensors by name, where
            `condition` is `()`, or `(value,)` for a model with a condition.
        of_encoder: whether it is written only on demand, with the encoder's weights.
        or_outputs: the names of its outputs where the model's posterior is not a `Normal`.
    """

    name: str
    needs: tuple
    inputs: tuple
    outputs: tuple
    function: collections.abc.Callable
    of_encoder: bool = False
    or_outputs: tuple = ()

    def compute(self, model, tensors):
        """The outputs for inputs by name, among them the model's condition."""
        condition = ()
        if model.condition is not None:
            value = ops.cast(tensors[model.condition.name], model.condition.dtype)
            condition = (_existing(model.condition, value),)
        outputs = self.function(model, condition, *(tensors[name] for name in self.inputs))
        return {name: _as_declared(name, value) for name, value in outputs.items()}

    def traced(self, model):
        """A `tf.function` of the inputs by name, for `tf.saved_model.save`."""
        inputs = input_specs(self, model)
        specs = [
            tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in inputs.items()
        ]

        def run(*tensors):
            return self.compute(model, dict(zip(inputs, tensors, strict=True)))

        run.__name__ = self.name  # the graph's function is called after it
        return tf.function(run, input_signature=specs, autograph=False)


def _decode(model, condition, z):
    return {"probabilities": model.likelihood.mean(model.decode(z, *condition))}


def _generate(model, condition, seed):
    with drawing(PerSeed(seed)):
        z = model.sample_prior(ops.shape(seed)[0], *condition)
    return {"images": model.likelihood.mean(model.decode(z, *condition)), "z": z}


def _generate_png(model, condition, seed):
    images = ops.cast(_generate(model, condition, seed)["images"], "float32")
    levels = tf.cast(tf.round(255 * tf.clip_by_value(images, 0, 1)), "uint8")
    height, width, channels = (*model.image_shape, 1)[:3]
    return {"png_bytes": tf.io.encode_png(tf.reshape(levels, (-1, height, width, channels)))}


def _encode(model, condition, images):
    if model.posterior is not None:
        posterior = model.posterior(images, *condition)
        if isinstance(posterior, Normal):
            return {"z_mean": posterior.mean(), "z_log_var": posterior.log_var}
    return {"z": first(model.encode(images, *condition))}


def _reconstruct(model, condition, images):
    return {"images": model.reconstruction(images, *condition)}


def _score(model, condition, images, seed):
    with drawing(PerSeed(seed)):
        terms = model.terms(images, *condition)
        return {"elbo": -terms.get("elbo_loss", terms["loss"])}


_DECODER = ("decode", "likelihood")
_PRIOR = (*_DECODER, "sample_prior")
_ENCODER = (*_DECODER, "encode")

SIGNATURES = (
    Signature("serving_default", _DECODER, ("z",), ("probabilities",), _decode),
    Signature("decode", _DECODER, ("z",), ("probabilities",), _decode),
    Signature("generate", _PRIOR, ("seed",), ("images", "z"), _generate),
    Signature("generate_png", (*_PRIOR, "picture"), ("seed",), ("png_bytes",), _generate_png),
    Signature(
        "encode", _ENCODER, ("images",), ("z_mean", "z_log_var"), _encode, True, or_outputs=("z",)
    ),
    Signature("reconstruct", _ENCODER, ("images",), ("images",), _reconstruct, True),
    Signature(
        "score", (*_PRIOR, "encode", "log_weights"), ("images", "seed"), ("elbo",), _score, True
    ),
)
BY_NAME = {signature.name: signature for signature in SIGNATURES}


def signatures_of(model, with_encoder):
    """The signatures that `model` has what they need for."""
    return [
        signature
        for signature in SIGNATURES
        if (with_encoder or not signature.of_encoder)
        and all(_has(model, need) for need in signature.needs)
    ]


def input_specs(signature, model):
    """`(shape of a row, dtype)` of each input of a signature of `model`, by name."""
    shapes = {"z": model.latent_shape, "images": model.image_shape, "seed": ()}
    specs = {name: (tuple(shapes[name]), DTYPES.get(name, "float32")) for name in signature.inputs}
    if model.condition is None:
        return specs
    return specs | {model.condition.name: (model.condition.shape, _served_dtype(model.condition))}


def is_picture(image_shape):
    """Whether a PNG file can hold images of a shape: `(H, W)`, or `(H, W, C)` with 1, 3 or 4 channels."""
    return len(image_shape) == 2 or (len(image_shape) == 3 and image_shape[2] in _PNG_CHANNELS)


def _has(model, need):
    if need == "picture":
        return is_picture(model.image_shape)
    value = getattr(model, need, None)
    inherited = getattr(value, "__func__", value) is getattr(Model, need, None)
    return value is not None and not inherited  # the base class's own `encode` and `decode` raise


def _served_dtype(condition):
    """int64 for integers and booleans, float32 for other numbers."""
    dtype = tf.as_dtype(condition.dtype)
    if not (dtype.is_integer or dtype.is_floating or dtype.is_bool):
        raise invalid("condition", "numbers, which a server can be sent", f"dtype {dtype.name}")
    return "float32" if dtype.is_floating else "int64"


def _existing(condition, value):
    """The condition's value, of which a label that does not exist is an error of the exported graph too.

    TF Serving answers with the words; a server that puts requests together, to all of them.
    """
    if condition.num_classes is None:
        return value
    wrong = ops.logical_or(value < 0, value >= condition.num_classes)
    words = f"{condition.name}: expected {condition.values}. Received:"
    data = [words, tf.boolean_mask(value, wrong)[:1]]
    right = tf.raw_ops.Assert(condition=~tf.reduce_any(wrong), data=data)
    with tf.control_dependencies([right]):
        return tf.identity(value)


def _as_declared(name, value):
    return value if DTYPES.get(name) == "string" else ops.cast(value, "float32")
