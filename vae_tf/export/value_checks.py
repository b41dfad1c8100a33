"""Checks of what an exported model computes: the same in any batch and process, and what its run computes.

A check is a function of a `Trial`, and gives `(problems, facts)`, as in `declared_checks`.
"""

import numpy as np
import tensorflow as tf

from vae_tf.export.comparison import Comparison, pixels_of, png_levels
from vae_tf.export.declared_checks import IMAGES, tensors
from vae_tf.export.graph import computes_in_half_precision, shape_of, uses_weights
from vae_tf.export.trial import ROWS, ROWS_AGAIN


def check_batching(trial):
    """Every signature takes any number of rows, and a row does not depend on the others."""
    comparison = _comparison(trial, 1e-5)  # rounding goes through an encoder and a decoder
    fixed = {
        name: f"{key} of {name} has no free batch dimension: {shape_of(info)}"
        for name, key, info in tensors(trial)
        if shape_of(info)[:1] != (-1,)
    }
    failed = [
        text for key, text in trial.failures.items() if key[1] in ROWS and key[0] not in fixed
    ]
    for row in trial.known:
        if "seed" not in row.inputs:
            _compare_rows(trial, row.name, comparison)
    facts = f"1, 7 and 64 rows give as many, and the same ones; {comparison.facts}"
    ran = any(trial.together(row.name) for row in trial.known)
    return [*fixed.values(), *failed, *comparison.problems], facts if ran else ""


def check_seeds(trial):
    """A seed fixes what is drawn, in any batch and process; different seeds draw different codes."""
    comparison, problems = _comparison(trial), []
    for row in trial.known:
        if "seed" in row.inputs and trial.together(row.name):
            _compare_rows(trial, row.name, comparison)
            problems += _seed_problems(trial, row.name)
    places = "the same alone, in batches of 7 and 64, and in another process"
    facts = f"{places}; {comparison.facts}" if comparison.facts else ""
    return problems + comparison.problems, facts


def _seed_problems(trial, name):
    batches = ("extreme seeds", "another process")
    problems = [trial.failures[name, b] for b in batches if (name, b) in trial.failures]
    together, extreme = trial.together(name), trial.outputs.get((name, "extreme seeds"), {})
    broken = sorted(_not_finite(extreme) - _not_finite(together))
    problems += [f"{name}: {key} is not finite for extreme seeds" for key in broken]
    codes = [outputs["z"] for outputs in (together, extreme) if "z" in outputs]
    if codes and len(np.unique(np.concatenate(codes), axis=0)) < sum(map(len, codes)):
        problems.append(f"{name}: different seeds give the same z")
    return problems


def _compare_rows(trial, name, comparison):
    """The rows of each batch against the same rows of the batch of 64."""
    together = trial.together(name)
    for batch, rows in {7: ROWS[7], 1: ROWS[1], "another process": ROWS_AGAIN}.items():
        expected = {key: value[rows] for key, value in together.items()}
        given = trial.outputs.get((name, batch), {})
        comparison.add(f"{name}, {batch}", given, expected, _exact(trial, name))


def check_values(trial):
    """Everything is finite, and pixels are within the model's range."""
    low, high = (0.0, 1.0) if trial.model is None else trial.model.value_range
    problems, pixels = [], {}
    for row in trial.known:
        outputs = trial.together(row.name)
        broken = _not_finite(outputs)
        problems += [f"{key} of {row.name} is not finite" for key in sorted(broken)]
        for key in set(IMAGES) & (outputs.keys() - broken):
            pixels[row.name] = outputs[key].min(), outputs[key].max()
    if not pixels:
        return problems, ""
    least, largest = min(least for least, _ in pixels.values()), max(m for _, m in pixels.values())
    facts = f"pixels from {least:.3g} to {largest:.3g}"
    outside = [name for name, ends in pixels.items() if ends[0] < low or ends[1] > high]
    if outside:
        hint = (
            "" if trial.model is not None else "; a Gaussian likelihood's may: compare with its run"
        )
        problems.append(f"{facts}, outside of [{low:g}, {high:g}], in {', '.join(outside)}{hint}")
    return problems, facts


def check_agreement(trial):
    """`decode`, `generate` and `generate_png` give the same images."""
    comparison, batch = _comparison(trial), "z of generate"
    decoded, generated = trial.together("decode"), trial.together("generate")
    default, pictures = trial.together("serving_default"), trial.together("generate_png")
    comparison.add("decode and serving_default", decoded, default)
    failures = [(key[0], text) for key, text in trial.failures.items() if key[1] == batch]
    problems = [text for name, text in failures if trial.together(name)]
    for key, outputs in trial.outputs.items():
        if key[1] == batch and "probabilities" in outputs:
            images = {"images": outputs["probabilities"]}
            comparison.add("generate and its z decoded", generated, images)
    if np.isfinite(generated.get("images", np.nan)).all():
        comparison.add("generate_png and generate", pictures, png_levels(generated["images"]))
    if "png_bytes" in pictures and pictures["png_bytes"].dtype == object:
        problems.append("generate_png gives no PNG pictures of one size")
    return problems + comparison.problems, comparison.facts


def check_run(trial):
    """Every signature gives what the Keras model of the run gives."""
    comparison, problems = _comparison(trial), []
    for row in trial.known if trial.model is not None else ():
        if not (outputs := trial.together(row.name)):
            continue
        try:
            expected = _by_keras(row, trial.model, trial.feeds(row.name, ROWS[64]))
            comparison.add(row.name, outputs, expected, _exact(trial, row.name))
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            problems.append(f"{row.name}: {str(error).splitlines()[0]}")
    return problems + comparison.problems, comparison.facts


def _by_keras(row, model, feeds):
    """What the Keras model gives for the inputs of a signature."""
    with tf.device("CPU"):
        outputs = row.compute(model, {name: tf.constant(value) for name, value in feeds.items()})
    return {name: pixels_of(value.numpy()) for name, value in outputs.items()}


def _comparison(trial, tolerance=1e-6):
    return Comparison(tolerance, computes_in_half_precision(trial.graph))


def _exact(trial, name):
    """Codes that are drawn without weights of the model are the same bit for bit."""
    output = trial.signatures[name].outputs.get("z")
    is_draw = name == "generate" and output is not None
    return ("z",) if is_draw and not uses_weights(trial.graph, output.name) else ()


def _not_finite(outputs):
    """The names of outputs with values that are not finite."""
    numbers = {key: value for key, value in outputs.items() if value.dtype != object}
    return {key for key, value in numbers.items() if not np.isfinite(value).all()}
