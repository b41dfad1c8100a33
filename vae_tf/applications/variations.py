"""Variations of images, paths between them, attributes added to them: the command and its pictures.

Each kind of walk has two functions: the numbers of the images that it begins from, and what it shows.
"""

import itertools

import numpy as np

from vae_tf import paths
from vae_tf.applications.command import Result
from vae_tf.applications.walks import (
    around,
    attribute_vector,
    path,
    with_attribute,
)
from vae_tf.errors import invalid
from vae_tf.evaluation.report import Section
from vae_tf.plots.codes import label_text
from vae_tf.plots.grids import image_rows
from vae_tf.serving.rows import Floats

SHOWN = 6  # images that are begun from, by default


def check(task):
    needed = "posterior" if task.config.kind == "around" else "encode"
    task.source.needs(needed, f"variations --kind {task.config.kind}")
    task.source.needs("decode", "variations")
    WALKS[task.config.kind][0](task)


def run(task, progress):
    """The pictures of one kind of walk, and what it measured in the space of codes."""
    kind = task.config.kind
    progress(kind, 0, 1)
    rows, walk = WALKS[kind]
    metrics, section = walk(task, rows(task))
    return Result({"variations": {"kind": kind} | metrics}, [section])


def _given(task):
    """The images that are asked for, all of which exist; or the first ones."""
    return _checked(task, task.config.index, np.arange(min(SHOWN, len(task.x))))


def _checked(task, chosen, default):
    wrong = [number for number in chosen or () if number >= len(task.x)]
    if wrong:
        expected = f"numbers of the {len(task.x)} images, from 0 to {len(task.x) - 1}"
        raise invalid("index", expected, ", ".join(map(str, wrong)))
    return default if chosen is None else np.array(chosen)


def _around(task, rows):
    config, x, condition = task.config, task.x[rows], _condition(task, rows)
    varied = around(task.source, x, config.num, config.scale, config.seed, condition)
    again = around(task.source, x, 1, 0.0, condition=condition)
    sigma = float(np.exp(0.5 * task.source.posterior(x, condition)[1]).mean())
    change = float(np.sqrt(np.mean((varied - again) ** 2)))
    table = [
        ("σ of q(z|x), mean", f"{sigma:.3f}"),
        ("scale of the noise", f"{config.scale:g}"),
        ("change of a pixel, root mean square", f"{change:.4f}"),
    ]
    columns = ["image", "μ", *map(str, range(1, config.num + 1))]
    images = np.concatenate([_column(x), again, varied], axis=1)
    title = f"Around images: μ + {config.scale:g}·σ·ε"
    figure = image_rows(images, _names(task, rows), columns, title)
    metrics = {"sigma": sigma, "scale": config.scale, "pixel_change": change}
    return metrics, Section("Variations around images", table, figures={"around": figure})


def _chain(task):
    """Images from each of which a path goes to the next: at least two, of one condition."""
    same = np.arange(len(task.x))
    if task.condition is not None:
        same = np.flatnonzero([np.array_equal(c, task.condition[0]) for c in task.condition])
    rows = _checked(task, task.config.index, same[:SHOWN])
    if len(rows) < 2:
        raise invalid("index", "two images or more, for paths between them", f"{len(rows)}")
    conditions = _condition(task, rows)
    if conditions is not None and not all(np.array_equal(c, conditions[0]) for c in conditions):
        name = task.source.condition.name
        expected = f"images of one {name}, which the model is told for the whole of a path"
        raise invalid("index", expected, ", ".join(map(str, rows)))
    return rows


def _path(task, rows):
    x, condition, num = task.x[rows], _condition(task, rows[:1]), task.config.num
    condition = None if condition is None else condition[0]
    codes = task.source.encode(x, condition).reshape(len(rows), -1)
    lengths = np.linalg.norm(codes, axis=1)
    cosines = (codes[1:] * codes[:-1]).sum(1) / np.maximum(lengths[1:] * lengths[:-1], 1e-30)
    angle = float(np.degrees(np.arccos(cosines.clip(-1, 1))).mean())
    distance = float(np.linalg.norm(np.diff(codes, axis=0), axis=1).mean())
    names, figures = _names(task, rows[:-1]), {}
    for kind in paths.PATHS:
        pairs = itertools.pairwise(x)
        walks = np.stack([path(task.source, *pair, num, kind, condition) for pair in pairs])
        images = np.concatenate([_column(x[:-1]), walks, _column(x[1:])], axis=1)
        columns = ["image", *(f"{t:.2g}" for t in np.linspace(0, 1, num)), "to"]
        title = f"Along {kind} paths between codes"
        figures[f"path_{kind}"] = image_rows(images, names, columns, title)
    table = [("distance of the codes, mean", f"{distance:.2f}")]
    table.append(("angle between them about 0, mean", f"{angle:.0f} degrees"))
    metrics = {"distance": distance, "angle_degrees": angle}
    return metrics, Section("Paths between images", table, figures=figures)


def _group(task):
    """The images that the attribute is added to: those asked for, or the first without it."""
    without = _labelled(task, "from_label")
    _labelled(task, "to_label")
    return _checked(task, task.config.index, without[:SHOWN])


def _labelled(task, option):
    """The numbers of the images whose label, written out, an option says."""
    wanted = getattr(task.config, option)
    if np.ndim(task.y) != 1:
        hint = "In Python `attribute_vector` takes two arrays of images."
        raise invalid(option, "images with a label each, for 'attribute'", "none", hint)
    labels = np.asarray(task.y).astype(str)
    if wanted is None or wanted not in labels:
        expected = f"one of the labels {', '.join(np.unique(labels)[:50])}"
        raise invalid(option, expected, f"{option}={wanted!r}")
    return np.flatnonzero(labels == wanted)


def _attribute(task, rows):
    groups = [_labelled(task, option) for option in ("from_label", "to_label")]
    conditions = [_condition(task, group) for group in groups]
    vector = attribute_vector(task.source, *(task.x[group] for group in groups), *conditions)
    x, condition, strengths = task.x[rows], _condition(task, rows), task.config.strengths
    walks = with_attribute(task.source, x, vector, strengths, condition)
    sizes, length = [len(group) for group in groups], float(np.linalg.norm(vector))
    ends = f"{task.config.from_label} to {task.config.to_label}"
    table = [("images of each", f"{sizes[0]} and {sizes[1]}"), ("length", f"{length:.2f}")]
    columns = ["image", *(f"{strength:g}" for strength in strengths)]
    images = np.concatenate([_column(x), walks], axis=1)
    title = f"The attribute “{ends}” added, so many times"
    figures = {"attribute": image_rows(images, _names(task, rows), columns, label_text(title))}
    caveats = []
    if task.condition is not None:
        name = task.source.condition.name
        caveats = [
            f"The model is told the {name}, and keeps it: the code is of what else there is."
        ]
    metrics = {"images": sizes, "length": length, "strengths": list(strengths)}
    return metrics, Section(f"The attribute from {ends}", table, "", figures, caveats)


WALKS = {"around": (_given, _around), "path": (_chain, _path), "attribute": (_group, _attribute)}


def _condition(task, rows):
    return None if task.condition is None else np.asarray(task.condition)[rows]


def _column(x):
    """Images as the first or last column of a picture."""
    return Floats(x)[:][:, None]


def _names(task, rows):
    labels = task.y if np.ndim(task.y) == 1 else None
    ends = ["" if labels is None else f"\n{label_text(f'label {labels[row]}')}" for row in rows]
    return [f"image {row}{end}" for row, end in zip(rows, ends, strict=True)]
