"""The run directory: what `train` leaves, and what `plot`, `evaluate` and `export` read.

`config.json` (what was asked, on which data, with which versions, and what came of it),
`model.keras`, `best.keras`, `history.csv`, `latent.csv`, `checkpoints/`, and the pictures. Where a prior
is trained in a second phase, `prior/` has the history, the checkpoints and the best state of that.
"""

import csv
import dataclasses
import hashlib
import io
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from vae_tf import __version__, data, files
from vae_tf.engine.callbacks import as_columns
from vae_tf.engine.checkpoints import checkpoint_paths
from vae_tf.errors import invalid
from vae_tf.files import free_path  # noqa: F401
from vae_tf.models.base import Model
from vae_tf.training.record import check_record

_RESUME = "If it was interrupted: vae-tf train --resume RUN goes on with it."


# Reading.


def load_run(path):
    """`(record, model)` of a run directory: what its `config.json` holds, and the trained model.

    Raises:
        ValueError: it is no run, or has no model yet, or none that loads.
    """
    path, record = pathlib.Path(path), load_record(path)
    file = path / "model.keras"
    if not file.is_file():
        received = f"{str(path)!r}, whose training has not come to an end"
        raise invalid("run", "a run with a model.keras", received, _RESUME)
    shape = tuple(record["data"]["image_shape"])
    model = _load_model(file, record)
    if not isinstance(model, Model) or tuple(model.image_shape) != shape:
        received = f"{str(file)!r}, which holds another: {type(model).__name__}"
        raise invalid("run", f"a run with a vae_tf.Model of images of {shape}", received)
    return record, model


def _load_model(file, record):
    """What Keras makes of a file; one that it cannot load, for whatever reason, is named."""
    try:
        return keras.models.load_model(file)
    except Exception as error:
        if "Could not locate" not in str(error):
            received = f"{str(file)!r}, which is damaged ({type(error).__name__}: {error})"
            raise invalid("run", "a run with a model that loads", received, _RESUME) from error
        hint = (
            "Import the module that defines it first. The class needs the decorator "
            "@keras.saving.register_keras_serializable()."
        )
        received = f"{str(file)!r}, of a class {record.get('model')!r}"
        raise invalid("run", "a run whose model's class is known", received, hint) from error


def load_record(path):
    """What `config.json` of a run holds.

    Raises:
        ValueError: it is no run, or the file is damaged.
    """
    path = pathlib.Path(path) / "config.json"
    if not path.is_file():
        expected = "a run directory, which holds config.json"
        raise invalid("run", expected, f"{str(path.parent)!r}", "vae-tf train makes one.")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        received = f"{str(path)!r} ({error})"
        raise invalid("run", "a run whose config.json is whole", received) from error
    return check_record(path, content)


def load_images(record):
    """The images that a run was trained on, loaded again from where they came.

    With `--binarize fixed` they are binary, with `dynamic` the grey values that it draws from.

    Raises:
        ValueError: they are not what they were.
    """
    images = load_like(record, record["config"]["dataset"], record["config"]["data"])
    if record["config"].get("binarize") == "fixed":
        images = in_parts(record, data.binarize(images))
    found = fingerprint(images)
    for what, key in (("images", "sha256"), ("labels", "labels_sha256")):
        now, then = found.get(key), record["data"].get(key)  # earlier runs noted no labels
        if then is not None and now != then:
            expected = f"the {what} that the run was trained on (SHA-256 {then[:12]}...)"
            hint = "Bring them back, or start a new run."
            raise invalid("data", expected, f"others ({(now or 'none')[:12]}...)", hint)
    return images


def load_like(record, dataset, path):
    """Images from any source, resized as a run's are, on its background, with its numbers of labels.

    Args:
        record: the run's.
        dataset, path: as of `data.load`.
    """
    config = record["config"]
    how = {name: config.get(name) for name in ("resize", "background")}
    images = data.load(dataset, path, **how, value_range=data.ANY_VALUE)
    images = data.numbered(images, record.get("classes"))
    return images if config.get("binarize") == "fixed" else in_parts(record, images)


def in_parts(record, images):
    """Images as a run with `--quadrants` has them; what is given is binary where the run's images are."""
    num = record["config"].get("quadrants")
    return images if num is None else data.with_quadrants(images, num)


def load_history(path):
    """`history.csv` as a dictionary of float arrays by column; NaN where a row has no value."""
    path = pathlib.Path(path) / "history.csv"
    if not path.is_file():
        raise invalid("run", "a run with a history.csv", f"{str(path.parent)!r}", _RESUME)
    with open(path, newline="") as file:
        return as_columns(list(csv.DictReader(file)))


def last_checkpoint(path):
    """The newest checkpoint of a run's last phase; None where there is none."""
    folders = (pathlib.Path(path) / "prior", pathlib.Path(path))
    found = [file for folder in folders for file in checkpoint_paths(folder / "checkpoints")]
    return found[0] if found else None


# Writing.


def save_history(path, rows, latent_rows):
    """Write the history of a training, and what each latent dimension carried in each epoch.

    Args:
        path: where to.
        rows: of `StepHistory`.
        latent_rows: of `LatentMonitor`; without any, no `latent.csv` is written.
    """
    _write_csv(path / "history.csv", rows)
    if latent_rows:
        _write_csv(path / "latent.csv", [_latent_row(row) for row in latent_rows])


def _latent_row(row):
    columns = {key: row[key] for key in ("epoch", "active_units")}
    for stem, name in (("kl", "kl_per_dimension"), ("std", "aggregate_std")):
        columns |= {f"{stem}_z{j}": value for j, value in enumerate(row[name], start=1)}
    return columns


def _write_csv(path, rows):
    """The columns are the keys of all rows, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows({k: "" if v != v else v for k, v in row.items()} for row in rows)  # NaN
    files.write_atomically(path, text.getvalue().encode())


def write_record(path, record):
    """Write `config.json` of the run at `path`, so that it is whole at any moment."""
    content = json.dumps(record, indent=2) + "\n"
    files.write_atomically(pathlib.Path(path) / "config.json", content.encode())


def describe(plan):
    """What is needed to know, later, what this run was."""
    config = dataclasses.asdict(plan.config)
    if plan.config.data is not None:
        config["data"] = str(pathlib.Path(plan.config.data).resolve())
    return {
        "config": {key: list(v) if isinstance(v, tuple) else v for key, v in config.items()},
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "warmup_steps": plan.warmup_steps,
        "data": fingerprint(plan.images),
        **({} if plan.classes is None else {"classes": plan.classes}),
        "versions": versions(),
    }


def versions():
    """Of this package and of what its figures depend on."""
    return {
        "vae_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def fingerprint(images):
    """The name and sizes of a data set, and the SHA-256 of its images and, where it has any, its labels."""
    digest = hashlib.sha256(np.ascontiguousarray(images.x_train))  # no copy of the bytes
    digest.update(np.ascontiguousarray(images.x_test))
    counts = {}
    if images.x_val is not None:
        digest.update(np.ascontiguousarray(images.x_val))
        counts = {"val": len(images.x_val)}
    labels = [images.y_train, images.y_test, images.y_val]
    if np.ndim(images.y_train) == 2:  # what is given of the images
        given = b"".join(np.ascontiguousarray(y).tobytes() for y in labels if y is not None)
        counts["labels_sha256"] = hashlib.sha256(given).hexdigest()
    elif any(y is not None for y in labels):  # as text: the same whatever their type
        text = json.dumps([None if y is None else [str(label) for label in y] for y in labels])
        counts["labels_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return {
        "name": images.name,
        "image_shape": list(images.image_shape),
        "train": len(images.x_train),
        "test": len(images.x_test),
        "sha256": digest.hexdigest(),
        **counts,
    }
