"""Training: the model of a plan, its callbacks, and the run directory that it leaves."""

import contextlib
import dataclasses
import shutil
import time

import keras

import vae_tf
from vae_tf import data, files
from vae_tf.engine.callbacks import (
    FreeBits,
    Interruption,
    KLWarmup,
    StepHistory,
    StopAt,
)
from vae_tf.engine.checkpoints import BestModel, Checkpoints
from vae_tf.engine.monitor import LatentMonitor
from vae_tf.errors import InvalidTypeError, InvalidValueError, invalid
from vae_tf.models.base import Model
from vae_tf.training import runs
from vae_tf.training.config import TrainConfig
from vae_tf.training.fields import MODELS
from vae_tf.training.plan import prepare
from vae_tf.training.progress import Progress, in_order

EVALUATIONS = 20  # while a run trains, at most


def train(plan, progress=True, model=None, finish=None):
    """Train, evaluate on the test set, and write the run directory.

    Args:
        plan: a `Plan` from `prepare` or `prepare_resume`, or a `TrainConfig`.
        progress: show a progress bar on standard error.
        model: a `vae_tf.Model` of your own, which is trained in place of the one that the
            configuration describes. Where it is not compiled, it gets the recipe's optimizer.
        finish: called when the model and its history are saved, before the run counts as
            completed; `vae-tf train` draws there. A run that was killed meanwhile comes there again
            when it is resumed.

    Returns:
        A dictionary: what `config.json` holds. On Ctrl-C the model and the history so far are
        saved all the same, and `status` says at which step.

    Raises:
        ValueError, TypeError: the data, the options or the model do not fit, and nothing is written;
            or another process trains into the run.
        FloatingPointError: a term of the loss is not finite.
        OSError: a file could not be written, on a full disk for example. The run can be resumed.

    Example:
        >>> record = train(TrainConfig(steps=20, run="runs/first"))  # doctest: +SKIP
        >>> record["test"]["loss"]  # doctest: +SKIP
    """
    if isinstance(plan, TrainConfig):
        plan = prepare(plan, getattr(model, "value_range", None))
    model = _of_plan(plan) if model is None else _own(plan, model)
    record = runs.describe(plan) | {"model": type(model).__name__}
    monitor, history, *_ = hooks = _hooks(plan, model)
    train_data, held_data = _pair(model, plan.watched, "train"), _pair(model, plan.watched, "test")
    _begin(plan, record)
    with files.locked(plan.path), _checkpoints_named(plan):
        files.remove_scratch(plan.path)
        runs.write_record(plan.path, record | {"status": "training"})
        start = time.perf_counter()
        status = _trained(plan, model, record, (train_data, held_data), hooks, progress)
        record |= {"status": status, "seconds": round(time.perf_counter() - start, 1)}
        record |= {"trained_steps": model.steps_made}
        try:
            return _finish(plan, model, record, history, monitor, finish)
        except KeyboardInterrupt:
            words = f"The training is kept: vae-tf train --resume {plan.path} goes on from there."
            raise KeyboardInterrupt(words) from None


def callbacks(steps, warmup_steps=0, beta=1.0, free_bits=0.0, model=None):
    """The callbacks of a recipe: the monitor and the history, which takes what the monitor adds.

    Args:
        steps: when to stop.
        warmup_steps, beta: of `KLWarmup`.
        free_bits: of `FreeBits`.
        model: a schedule is left out where the model has no such setting; None stands for a VAE.
    """
    schedules = {"beta": KLWarmup(warmup_steps, beta), "free_bits": FreeBits(free_bits)}
    fitting = [hook for name, hook in schedules.items() if model is None or hasattr(model, name)]
    return [LatentMonitor(), StepHistory(), *fitting, StopAt(steps)]


# The model.


def _of_plan(plan):
    """The compiled model that a plan describes."""
    config, name = plan.config, MODELS[plan.config.model]
    if plan.resume and runs.load_record(plan.path).get("model", name) != name:
        hint = "In Python: vae_tf.train(vae_tf.training.prepare_resume(RUN), model=...)."
        expected = "the model that the run was begun with, which is your own"
        raise invalid("model", expected, "none", hint)
    keras.utils.set_random_seed(config.seed)
    given = config.of_the_model
    if config.model == "conditionalvae":
        given["num_classes"] = data.num_classes(plan.images)
    model = getattr(vae_tf, name)(
        **given,
        binarize=config.binarize == "dynamic",
        kernel_initializer=plan.recipe.kernel_initializer,
        output_bias=plan.recipe.output_bias,
        seed=config.seed,
    )
    return _ready(plan, model)


def _own(plan, model):
    """A user's model, compiled; options that are not for it are refused."""
    if not isinstance(model, Model):
        received = type(model).__name__
        raise invalid("model", "a vae_tf.Model", received, kind=InvalidTypeError)
    settings = {"kl_warmup": "beta", "beta": "beta", "free_bits": "free_bits"}
    taken = {name for name, setting in settings.items() if hasattr(model, setting)}
    for field in dataclasses.fields(TrainConfig):
        name, value = field.name, getattr(plan.config, field.name)
        of_models = field.metadata["needs"] or name in ("model", "likelihood", "activation")
        dynamic = name == "binarize" and value == "dynamic"
        if (of_models or dynamic) and name not in taken and value != field.default:
            expected = f"the default: {type(model).__name__} does not take this from the options"
            raise invalid(name, expected, f"{name}={value!r}")
    keras.utils.set_random_seed(plan.config.seed)
    return _ready(plan, model)


def _ready(plan, model):
    """The model, compiled and built to the images."""
    if not model.compiled:
        model.compile(plan.optimizer())
    if not model.built:
        model.build((None, *plan.images.image_shape))
    return model


def _pair(model, images, part):
    """`(x, y)` of a part of the images; y is None for a model without a condition."""
    x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
    if model.condition is None:
        return x, None
    if y is None:
        expected = f"images with labels, which {type(model).__name__} is conditioned on"
        raise invalid("data", expected, f"no labels of the {part} images of {images.name!r}")
    return x, y


# Training.


@contextlib.contextmanager
def _checkpoints_named(plan):
    """Of a resumed run, name the checkpoints in errors of what its callbacks were given back.

    Each part was of the right kind; what is inside a list shows only when a callback uses it.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        if not plan.resume or isinstance(error, (InvalidValueError, InvalidTypeError)):
            raise
        folder, found = plan.path / "checkpoints", f"{type(error).__name__}: {error}"
        expected = "a run whose checkpoints are as they were written"
        hint = f"Move the newest of {str(folder)!r} away, to go on from the one before it."
        raise invalid(
            "resume", expected, f"{str(plan.path)!r}, which ends with {found}", hint
        ) from error


def _begin(plan, record):
    """Make the directory of a new run, which is there with its `config.json` or not at all."""
    if plan.resume:
        return
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.aside(plan.path) as scratch:
            scratch.mkdir()
            runs.write_record(scratch, record | {"status": "training"})
    except FileExistsError as error:
        expected = "a directory that does not exist yet"
        received = f"{str(plan.path)!r}, which another process has just made"
        raise invalid("run", expected, received, "Give another name.") from error


def _hooks(plan, model):
    """The callbacks of a plan, the two that record first."""
    config = plan.config
    hooks = callbacks(plan.steps, plan.warmup_steps, config.final_beta, config.free_bits, model)
    hooks.append(BestModel(plan.path / "best.keras"))
    if config.early_stopping:
        hooks.append(keras.callbacks.EarlyStopping("val_loss", patience=config.early_stopping))
    if config.tensorboard:
        hooks.append(keras.callbacks.TensorBoard(plan.path / "tensorboard", write_graph=False))
    return [*hooks, Checkpoints(plan.path / "checkpoints", config.checkpoint_every)]


def _trained(plan, model, record, data, hooks, progress):
    """Train; the status in which that ends."""
    _, history, *_ = hooks
    try:
        _fit(plan, model, *data, hooks, progress)
    except KeyboardInterrupt:
        return _interrupted(plan, model, history, hooks[-1].saved_step)
    except FloatingPointError as error:
        runs.write_record(plan.path, record | {"status": f"diverged: {error}"})
        raise
    except (InvalidValueError, InvalidTypeError):
        if not history.rows:
            _remove(plan)
        raise
    return "completed"


def _fit(plan, model, train_data, held_data, hooks, progress):
    interruption = Interruption(begun=plan.resume, save=hooks[-1].save)
    every = 1 if plan.config.early_stopping else max(1, -(-plan.epochs // EVALUATIONS))
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruption.installed())
        if progress:
            hooks = [*hooks, bar := Progress(plan.steps, plan.batch_size)]
            stack.callback(bar.stop)
        model.fit(
            *train_data,
            batch_size=plan.batch_size,
            epochs=plan.epochs,
            verbose=0,
            validation_data=held_data[0] if held_data[1] is None else held_data,
            validation_freq=every,
            callbacks=[*hooks, interruption],
        )


def _interrupted(plan, model, history, saved_step):
    """The status of a training that Ctrl-C ended; again an interrupt where nothing is to be kept."""
    if not history.rows:
        _remove(plan)
        raise KeyboardInterrupt("Nothing was saved: training had not begun.") from None
    history.on_train_end()
    status = f"interrupted after {model.steps_made} of {plan.steps} steps"
    if saved_step == model.steps_made:
        return status
    return f"{status}, at once: its last checkpoint is of step {saved_step}"


def _remove(plan):
    """Remove the run directory of a training that did not begin."""
    if not plan.resume:
        shutil.rmtree(plan.path)


def _finish(plan, model, record, history, monitor, finish):
    """Save the model and its record, and evaluate a training that was completed."""
    completed = record["status"] == "completed"
    if completed and plan.config.early_stopping:
        known = {type(model).__name__: type(model)}
        model = keras.models.load_model(plan.path / "best.keras", custom_objects=known)
        record |= {"best_step": model.steps_made}
    runs.save(plan.path, model, history.rows, monitor.rows)
    if completed:
        test = _pair(model, plan.images, "test")
        options = {"batch_size": plan.batch_size, "verbose": 0, "return_dict": True}
        record |= {"test": in_order(model, model.evaluate(*test, **options))}
        if finish is not None:
            finish()
    runs.write_record(plan.path, record)  # last: a run that counts as completed has all its files
    return record | {"path": str(plan.path)}
