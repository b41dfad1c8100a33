"""Training from a configuration to a run directory: recipes, callbacks, files.

A run directory holds `config.json` (what was asked, on which data, with which versions, and what
came of it), `model.keras` and `history.csv`; the pictures are drawn beside them.
"""

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
import time
import zipfile

import keras
import numpy as np
import tensorflow as tf

from vae_tf import __version__, data
from vae_tf.checkpoints import Checkpoints
from vae_tf.errors import InvalidTypeError, check_new_path, check_positive_int, invalid
from vae_tf.models.vae import VAE, check_hidden_units

DEFAULT_STEPS, MOST_EPOCHS = 10_000, 200  # where neither steps nor epochs are given
_RESUME = "If it was interrupted: vae-tf train --resume RUN goes on with it."
EVALUATIONS = 20  # of the test set while a run trains, at most
TERMS = ("loss", "reconstruction_loss", "kl_loss", "beta")  # of a step, as in `step_terms`
HISTORY_COLUMNS = (
    "step", "epoch", "loss", "reconstruction_loss", "kl_loss", "beta",
    "val_loss", "val_reconstruction_loss", "val_kl_loss",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Adam's settings; `decay`: to 0, a cosine; `warmup`: the part of the steps in which β rises."""

    learning_rate: float
    beta_2: float = 0.999
    warmup: float = 0.0
    decay: bool = False

    def optimizer(self, learning_rate, steps):
        """Adam from `learning_rate`, over `steps`."""
        if self.decay:
            learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        return keras.optimizers.Adam(learning_rate, beta_2=self.beta_2)


RECIPES = {
    "original": Recipe(1e-3),
    "default": Recipe(2e-3, beta_2=0.99, warmup=0.3, decay=True),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What `vae-tf train` takes; see `vae-tf train --help` for each.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.
    """

    dataset: str = "digits"
    data: str | None = None
    recipe: str = "default"
    latent_dim: int = 10
    hidden_units: tuple[int, ...] = (512, 384, 256)
    batch_size: int | None = None
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    checkpoint_every: int = 1000
    run: str | None = None

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise invalid("recipe", " or ".join(map(repr, RECIPES)), f"recipe={self.recipe!r}")
        if self.steps is not None and self.epochs is not None:
            raise invalid(
                "steps", "either steps or epochs", f"steps={self.steps}, epochs={self.epochs}"
            )
        for name in ("latent_dim", "batch_size", "epochs", "steps", "checkpoint_every"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        if check_positive_int("seed", self.seed, minimum=0) >= 2**32:
            raise invalid("seed", "an integer below 2**32", f"seed={self.seed}")
        object.__setattr__(self, "hidden_units", check_hidden_units(self.hidden_units))
        rate = self.learning_rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float))):
            raise invalid(
                "learning_rate",
                "a positive number",
                f"learning_rate={rate!r}",
                kind=InvalidTypeError,
            )
        if rate is not None and not 0 < rate < float("inf"):
            raise invalid("learning_rate", "a positive number", f"learning_rate={rate!r}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A configuration with its data, and everything that follows from the two."""

    config: TrainConfig
    images: data.Images
    path: pathlib.Path
    batch_size: int
    steps: int
    learning_rate: float
    resume: bool = False

    @property
    def recipe(self):
        return RECIPES[self.config.recipe]

    @property
    def steps_per_epoch(self):
        return -(-len(self.images.x_train) // self.batch_size)

    @property
    def warmup_steps(self):
        return round(self.recipe.warmup * self.steps)


def prepare(config):
    """Load the data and settle every number, before anything is trained or written.

    Raises:
        ValueError: the data cannot be used, or the run directory exists.
    """
    path = None if config.run is None else check_new_path("run", config.run)
    if path is not None and path.exists():
        raise invalid(
            "run",
            "a directory that does not exist yet",
            f"{str(path)!r}",
            "Give another name, or move it away; to go on with it, vae-tf train --resume RUN.",
        )
    images = data.load(config.dataset, config.data)
    path = path or _free_path(images.name, config)
    return _settle(config, images, path)


def prepare_resume(path):
    """The plan of a run that was interrupted, to go on from its last checkpoint.

    Raises:
        ValueError: it is no run, or its data are not what they were.
    """
    record = _load_record(path)
    config = TrainConfig(**record["config"])
    return _settle(config, load_images(record), pathlib.Path(path), resume=True)


def _settle(config, images, path, resume=False):
    """The numbers that follow from a configuration and its data."""
    count = len(images.x_train)
    batch_size = min(100, count) if config.batch_size is None else config.batch_size
    if batch_size > count:
        raise invalid(
            "batch_size", f"at most the {count} training images", f"batch_size={batch_size}"
        )
    per_epoch = -(-count // batch_size)
    if config.epochs is not None:
        steps = config.epochs * per_epoch
    else:
        steps = config.steps or min(DEFAULT_STEPS, MOST_EPOCHS * per_epoch)
    rate = config.learning_rate or RECIPES[config.recipe].learning_rate
    return Plan(config, images, path, batch_size, steps, rate, resume)


def _free_path(name, config):
    """`runs/<data>_<recipe>_z<latent_dim>`, with a number behind it where that exists."""
    stem = f"{name.replace('/', '_')}_{config.recipe}_z{config.latent_dim}"
    numbered = (pathlib.Path("runs") / (stem if n == 1 else f"{stem}_{n}") for n in range(1, 2**31))
    return next(path for path in numbered if not path.exists())


class KLWarmup(keras.callbacks.Callback):
    """Raise the KL's weight β from 0 to 1, linearly over the first `steps` steps of the optimizer.

    β changes inside the compiled loop, at every step. Source: Sønderby et al. (2016), "Ladder
    Variational Autoencoders", section 2.3; Bowman et al. (2016).
    """

    def __init__(self, steps):
        super().__init__()
        self.steps = check_positive_int("steps", steps, minimum=0)

    def on_train_begin(self, logs=None):
        self.model.kl_warmup_steps.assign(self.steps)


class StopAt(keras.callbacks.Callback):
    """Stop when the optimizer has made `steps` steps, in the middle of an epoch if need be."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_begin(self, logs=None):
        self.model.step_limit.assign(self.steps)

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) >= self.steps:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.step_limit.assign(np.iinfo(np.int64).max)


class StepHistory(keras.callbacks.Callback):
    """Record the loss, its terms and β: each of the first 200 steps, then means of ever more steps.

    KL falls and rises within the first few hundred steps, which a record an epoch does not show.
    `rows` is a list of dictionaries with the keys of `HISTORY_COLUMNS`; `columns()` gives arrays, as
    `plots.train_process` takes them.
    """

    def __init__(self):
        super().__init__()
        self.rows, self.pending, self.epoch = [], [], 0

    def columns(self):
        """The record as a dictionary of float arrays; NaN where a row has no validation."""
        return _columns(self.rows)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations) - len(self.model.step_terms)
        for terms in self.model.step_terms:
            step += 1
            self.pending.append([float(term) for term in terms])
            if step <= 200 or step % (10 if step <= 2000 else 50) == 0:
                self._flush(step)

    def on_epoch_end(self, epoch, logs=None):
        if "val_loss" in (logs or {}):
            self._flush(int(self.model.optimizer.iterations))
            self.rows[-1] |= {key: logs[key] for key in HISTORY_COLUMNS if key.startswith("val_")}

    def on_train_end(self, logs=None):
        self._flush(int(self.model.optimizer.iterations))

    def _flush(self, step):
        if self.pending:
            means = map(float, np.mean(self.pending, axis=0))
            terms = zip(TERMS, means, strict=True)
            self.rows.append({"step": step, "epoch": self.epoch + 1, **dict(terms)})
            self.pending = []


class Progress(keras.callbacks.Callback):
    """One line that is redrawn on a terminal; elsewhere a line for each tenth of the way."""

    def __init__(self, steps, batch_size, stream=None):
        super().__init__()
        self.steps, self.batch_size, self.stream = steps, batch_size, stream or sys.stderr
        self._live, self._shown, self._start = self.stream.isatty(), -1, None

    def on_train_begin(self, logs=None):
        print("Compiling the training loop ...", file=self.stream, flush=True)

    def on_train_batch_end(self, batch, logs=None):
        step, now = int(self.model.optimizer.iterations), time.perf_counter()
        tenth = 10 * step // self.steps
        if self._live or tenth > self._shown:
            names = ("loss", "reconstruction_loss", "kl_loss")
            terms = "  ".join(f"{name} {logs[name]:.2f}" for name in names)
            self._write(f"step {step}/{self.steps}  {terms}{self._speed(step, now)}")
            self._shown = tenth

    def _speed(self, step, now):
        """Images a second and the time left, from the second execution on: the first compiles."""
        if self._start is None:
            self._start = (step, now)
            return ""
        rate = (step - self._start[0]) / (now - self._start[1])
        return f"  {rate * self.batch_size:.0f} images/s  {(self.steps - step) / rate:.0f} s left"

    def _write(self, line):
        text, end = (f"\r{line:<110}", "") if self._live else (line, "\n")
        print(text, end=end, file=self.stream, flush=True)

    def on_train_end(self, logs=None):
        if self._live:
            print(file=self.stream, flush=True)


class FiniteGuard(keras.callbacks.Callback):
    """Stop at the first step whose loss, or either of its terms, is not finite.

    Raises:
        FloatingPointError: names the term and the step, and says what usually helps.
    """

    def on_train_batch_end(self, batch, logs=None):
        bad = ~np.isfinite(self.model.step_terms)
        if not bad.any():
            return
        row = int(bad.any(axis=1).argmax())
        step = int(self.model.optimizer.iterations) - len(bad) + row + 1
        terms = dict(zip(TERMS, self.model.step_terms[row], strict=True))
        parts = [f"{name} is {terms[name]}" for name in TERMS[1:] if not np.isfinite(terms[name])]
        raise FloatingPointError(
            f"At step {step}, {' and '.join(parts) or 'loss is not finite'}. What usually helps: a "
            "smaller learning rate, a longer KL warm-up, inputs that the likelihood expects."
        )


class BestModel(keras.callbacks.Callback):
    """Keep the model with the lowest `val_loss` so far at `path`, written aside and renamed."""

    def __init__(self, path):
        super().__init__()
        self.path, self.best = path, float("inf")

    def on_epoch_end(self, epoch, logs=None):
        if (logs or {}).get("val_loss", float("inf")) < self.best:
            self.best = float(logs["val_loss"])
            _save_model(self.path, self.model)


def callbacks(steps, warmup_steps=0):
    """The recipe's callbacks, the record first."""
    return [StepHistory(), KLWarmup(warmup_steps), StopAt(steps), FiniteGuard()]


def train(plan, progress=True):
    """Train, evaluate on the test set, and write the run directory.

    Args:
        plan: a `Plan` from `prepare`, or a `TrainConfig`.
        progress: show a progress line on standard error.

    Returns:
        A dictionary: what `config.json` holds. On Ctrl-C the model and the history so far are
        saved all the same, and `status` says at which step.
    """
    plan = prepare(plan) if isinstance(plan, TrainConfig) else plan
    config, images = plan.config, plan.images
    keras.utils.set_random_seed(config.seed)
    vae = VAE(config.latent_dim, config.hidden_units, seed=config.seed)
    vae.build((None, *images.image_shape))
    vae.compile(plan.recipe.optimizer(plan.learning_rate, plan.steps))
    epochs = -(-plan.steps // plan.steps_per_epoch)
    hooks = callbacks(plan.steps, plan.warmup_steps)
    plan.path.mkdir(parents=True, exist_ok=plan.resume)
    best = BestModel(plan.path / "best.keras")
    directory, every = plan.path / "checkpoints", config.checkpoint_every
    hooks += [best, Checkpoints(directory, every, callbacks=[hooks[0], best])]
    record = _describe(plan)
    _write_json(plan.path / "config.json", record | {"status": "training"})
    start = time.perf_counter()
    try:
        vae.fit(
            images.x_train,
            batch_size=plan.batch_size,
            epochs=epochs,
            verbose=0,
            validation_data=images.x_test,
            validation_freq=max(1, -(-epochs // EVALUATIONS)),
            callbacks=hooks + ([Progress(plan.steps, plan.batch_size)] if progress else []),
        )
        status = "completed"
    except KeyboardInterrupt:
        if not hooks[0].rows:
            if not plan.resume:
                shutil.rmtree(plan.path)
            raise KeyboardInterrupt("Nothing was saved: training had not begun.") from None
        hooks[0].on_train_end()
        status = f"interrupted after {int(vae.optimizer.iterations)} of {plan.steps} steps"
    except FloatingPointError as error:
        _write_json(plan.path / "config.json", record | {"status": f"diverged: {error}"})
        raise
    record |= {"status": status, "seconds": round(time.perf_counter() - start, 1)}
    _save(plan.path, vae, hooks[0].rows)
    if status == "completed":
        record["test"] = vae.evaluate(
            images.x_test, batch_size=plan.batch_size, verbose=0, return_dict=True
        )
    _write_json(plan.path / "config.json", record)
    return record | {"path": str(plan.path)}


def load_run(path):
    """`(record, model)` of a run directory.

    Raises:
        ValueError: it is no run, or has no model yet.
    """
    path, record = pathlib.Path(path), _load_record(path)
    if not (path / "model.keras").is_file():
        raise invalid(
            "run",
            "a run with a model.keras",
            f"{str(path)!r}, whose training has not come to an end",
            _RESUME,
        )
    try:
        return record, keras.models.load_model(path / "model.keras")
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        found = f"{str(path / 'model.keras')!r}, which is damaged ({error})"
        raise invalid("run", "a run with a model that loads", found, _RESUME) from error


def _load_record(path):
    path = pathlib.Path(path) / "config.json"
    if not path.is_file():
        raise invalid(
            "run",
            "a run directory, which holds config.json",
            f"{str(path.parent)!r}",
            "vae-tf train makes one.",
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise invalid(
            "run", "a run whose config.json is whole", f"{str(path)!r} ({error})"
        ) from error


def load_images(record):
    """The images that a run was trained on, loaded again from where they came.

    Raises:
        ValueError: they are not what they were.
    """
    images = data.load(record["config"]["dataset"], record["config"]["data"])
    now, then = _fingerprint(images)["sha256"][:12], record["data"]["sha256"][:12]
    if now != then:
        expected = f"the images that the run was trained on (SHA-256 {then}...)"
        raise invalid(
            "data", expected, f"others ({now}...)", "Bring them back, or start a new run."
        )
    return images


def load_history(path):
    """`history.csv` as a dictionary of float arrays; NaN where a row has no validation."""
    path = pathlib.Path(path) / "history.csv"
    if not path.is_file():
        raise invalid("run", "a run with a history.csv", f"{str(path.parent)!r}", _RESUME)
    with open(path, newline="") as file:
        return _columns(list(csv.DictReader(file)))


def _columns(rows):
    return {
        key: np.array([float(row.get(key) or "nan") for row in rows]) for key in HISTORY_COLUMNS
    }


def _save_model(path, vae):
    """Save beside `path` and rename, so that `path` is whole at any moment."""
    aside = path.with_name(f".unfinished_{path.name}")
    vae.save(aside)
    os.replace(aside, path)


def _save(path, vae, rows):
    _save_model(path / "model.keras", vae)
    with open(path / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _describe(plan):
    """What is needed to know, later, what this run was."""
    images = plan.images
    source = dataclasses.asdict(plan.config)
    source["hidden_units"] = list(plan.config.hidden_units)
    if plan.config.data is not None:
        source["data"] = str(pathlib.Path(plan.config.data).resolve())
    return {
        "config": source,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "warmup_steps": plan.warmup_steps,
        "data": _fingerprint(images),
        "versions": {
            "vae_tf": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }


def _fingerprint(images):
    digest = hashlib.sha256(np.ascontiguousarray(images.x_train))  # no copy of the bytes
    digest.update(np.ascontiguousarray(images.x_test))
    return {
        "name": images.name,
        "image_shape": list(images.image_shape),
        "train": len(images.x_train),
        "test": len(images.x_test),
        "sha256": digest.hexdigest(),
    }


def _write_json(path, record):
    path.with_suffix(".tmp").write_text(json.dumps(record, indent=2) + "\n")
    os.replace(path.with_suffix(".tmp"), path)
