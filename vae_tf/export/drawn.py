"""What a model draws for seeds, a part at a time: from the model itself, and from its SavedModel.

Both run the signature, so that one seed gives the same image, and the same pixels of a PNG file.
"""

import tensorflow as tf

from vae_tf.errors import InvalidTypeError, as_typed, invalid
from vae_tf.export.loaded import Loaded
from vae_tf.export.signatures import BY_NAME, input_specs, signatures_of

_ROWS = 1000  # of a part


def from_model(model, signature, seeds, condition=None, rows=_ROWS):
    """Yield the first output of a signature for seeds: images `(rows, *image_shape)`, or PNG files.

    Args:
        model: a built `vae_tf.Model`.
        signature: "generate" or "generate_png".
        seeds: int64, one an image.
        condition: by name, for a model that has one: one for all images, or one for each.
        rows: how many at a time.

    Raises:
        TypeError: the model has no prior to draw from, or no images that a PNG file holds.
        ValueError: the condition is missing or does not fit.
    """
    model.needs("sample_prior", "generate")
    model.assert_built("generate")
    own = [] if model.condition is None else [model.condition]
    given = {"seed": seeds} | _condition_rows(own, condition or {}, len(seeds))
    row = BY_NAME[signature]
    if row not in signatures_of(model, with_encoder=False):
        expected = "a model of pictures: grey, in colour, or in colour with transparency"
        received = f"one of images of shape {model.image_shape}"
        hint = f"Arrays hold any: {as_typed('out', 'images.npz')}."
        raise invalid("model", expected, received, hint, kind=InvalidTypeError)
    specs, draw = input_specs(row, model), row.traced(model)
    for start in range(0, len(seeds), rows):
        part = {name: values[start : start + rows] for name, values in given.items()}
        inputs = [tf.constant(part[name], dtype) for name, (_, dtype) in specs.items()]
        yield draw(*inputs)[row.outputs[0]].numpy()


def from_saved_model(path, signature, seeds, condition, rows=_ROWS, trust_model=False):
    """Yield the first output of a signature of a SavedModel; arguments as for `from_model`.

    Args:
        path: a SavedModel, or a directory of versions, whose newest is taken.
        trust_model: run it whatever its operations are; see `vae_tf.export.operations`.

    Raises:
        ValueError: there is no SavedModel, it has operations that are not allowed or no such
            signature, or the condition is missing or does not fit.
    """
    loaded = Loaded(path, trust_model)
    if known := [name for name in ("generate", signature) if name in loaded.signatures]:
        own = loaded.conditions(known[0], ("seed",))  # what is said of the condition comes first
        given = {"seed": seeds} | _condition_rows(own, condition, len(seeds))
    loaded.check_has(signature)
    for start in range(0, len(seeds), rows):
        part = {name: value[start : start + rows] for name, value in given.items()}
        yield loaded.call(signature, part)[BY_NAME[signature].outputs[0]]


def _condition_rows(conditions, given, num):
    """The condition's value for each row, from one for all rows or one for each.

    Args:
        conditions: those of the model: one, or none.
        given: values by name.
        num: how many rows.
    """
    names = [condition.name for condition in conditions]
    for name in given.keys() - set(names):
        expected = "none: this model has no condition"
        if names:
            expected = f"none: the condition of this model is '{', '.join(names)}'"
        raise invalid(name, expected, f"{name}={given[name]}", _how(conditions))
    for condition in conditions:
        if condition.name not in given:
            expected = f"{condition.name} ({condition.values}), for this model has a condition"
            raise invalid(condition.name, expected, "none", _how(conditions))
    return {each.name: each.rows(given[each.name], num) for each in conditions}


def _how(conditions):
    """How the condition of a model is given."""
    for condition in conditions:
        if condition.name == "label" and not condition.shape:
            return f"It is given as {as_typed('label', 0)}, for example."
        name = condition.name
        return f"In Python: Model.generate(num, {name}=...), or Client.generate(num, {name}=...)."
    return ""
