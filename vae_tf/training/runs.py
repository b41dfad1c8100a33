"""The run directory: what `train` leaves, and what `plot`, `evaluate` and `export` read.

`config.json` (what was asked, on which data, with which versions, and what came of it),
`model.keras`, `best.keras`, `history.csv`, `latent.csv`, `checkpoints/`, and the pictures.
"""

import csv
import dataclasses
import hashlib
import io
import json
import pathlib
import zipfile

import keras
import numpy as np
import tensorflow as tf

import vae_tf.models.vae  # noqa: F401  so that Keras knows the class of a saved model
from vae_tf import __version__, data, files
from vae_tf.engine.callbacks import as_columns
from vae_tf.errors import invalid

_RESUME = "If it was interrupted: vae-tf train --resume RUN goes on with it."


def free_path(path):
    """`path`, with a number behind it where it exists."""
    names = (path if n == 1 else path.with_name(f"{path.name}_{n}") for n in range(1, 2**31))
    return next(name for name in names if not name.exists())


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
    try:
        return record, keras.models.load_model(file)
    except TypeError as error:  # Keras: "Could not locate class"
        if "Could not locate" not in str(error):
            raise
        hint = (
            "Import the module that defines it first. The class needs the decorator "
            "@keras.saving.register_keras_serializable()."
        )
        received = f"{str(file)!r}, of a class {record.get('model')!r}"
        raise invalid("run", "a run whose model's class is known", received, hint) from error
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        received = f"{str(file)!r}, which is damaged ({error})"
        raise invalid("run", "a run with a model that loads", received, _RESUME) from error


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
        return json.loads(path.read_text())
    except ValueError as error:
        received = f"{str(path)!r} ({error})"
        raise invalid("run", "a run whose config.json is whole", received) from error


def load_images(record):
    """The images that a run was trained on, loaded again from where they came.

    With `--binarize fixed` they are binary, with `dynamic` the grey values that it draws from.

    Raises:
        ValueError: they are not what they were.
    """
    images = data.load(record["config"]["dataset"], record["config"]["data"])
    if record["config"].get("binarize") == "fixed":
        images = data.binarize(images)
    now, then = fingerprint(images)["sha256"][:12], record["data"]["sha256"][:12]
    if now != then:
        expected = f"the images that the run was trained on (SHA-256 {then}...)"
        hint = "Bring them back, or start a new run."
        raise invalid("data", expected, f"others ({now}...)", hint)
    return images


def load_history(path):
    """`history.csv` as a dictionary of float arrays by column; NaN where a row has no value."""
    path = pathlib.Path(path) / "history.csv"
    if not path.is_file():
        raise invalid("run", "a run with a history.csv", f"{str(path.parent)!r}", _RESUME)
    with open(path, newline="") as file:
        return as_columns(list(csv.DictReader(file)))


# Writing.


def save(path, model, rows, latent_rows):
    """Write the model, its history, and what each latent dimension carried in each epoch.

    Args:
        path: the run directory.
        model: the trained model.
        rows: of `StepHistory`.
        latent_rows: of `LatentMonitor`; without any, no `latent.csv` is written.
    """
    with files.aside(path / "model.keras") as scratch:
        model.save(scratch)
    _write_csv(path / "history.csv", rows)
    if latent_rows:
        _write_csv(path / "latent.csv", [_latent_row(row) for row in latent_rows])


def _latent_row(row):
    kls = {f"kl_{j}": kl for j, kl in enumerate(row["kl_per_dimension"])}
    return {key: row[key] for key in ("epoch", "active_units")} | kls


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
    """The name, sizes and SHA-256 of a data set."""
    digest = hashlib.sha256(np.ascontiguousarray(images.x_train))  # no copy of the bytes
    digest.update(np.ascontiguousarray(images.x_test))
    return {
        "name": images.name,
        "image_shape": list(images.image_shape),
        "train": len(images.x_train),
        "test": len(images.x_test),
        "sha256": digest.hexdigest(),
    }
