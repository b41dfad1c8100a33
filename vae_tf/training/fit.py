"""Training: the model of a plan, its phases, and the run directory that they leave."""

import contextlib
import dataclasses
import shutil

import keras

import vae_tf
from vae_tf import data, files
from vae_tf.engine.checkpoints import save_model
from vae_tf.errors import InvalidTypeError, InvalidValueError, invalid
from vae_tf.models.base import Model
from vae_tf.training import runs
from vae_tf.training.config import TrainConfig
from vae_tf.training.fields import MODELS
from vae_tf.training.phase import Phase
from vae_tf.training.plan import prepare


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
    if model.prior_to_train is not None:
        record["prior"] = {"steps": plan.of_prior.steps}
    phases = _phases(plan, model)
    _begin(plan, record)
    with files.locked(plan.path), _checkpoints_named(plan):
        files.remove_scratch(plan.path)
        runs.write_record(plan.path, record | {"status": "training"})
        try:
            status = _first_phase(phases[0], progress)
            return _finish(phases, status, record, progress, finish)
        except FloatingPointError as error:
            runs.write_record(plan.path, record | {"status": f"diverged: {error}"})
            raise


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
    if config.quadrants is not None:
        shape = plan.images.y_train.shape[1:]
        given |= {"condition": vae_tf.Condition("given", shape, "float32"), "learned_prior": True}
    elif config.model == "conditionalvae":
        given["num_classes"] = data.num_classes(plan.images)
    if config.capacity is not None:
        given.setdefault("capacity_steps", plan.steps)
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
    settings |= dict.fromkeys(("prior_steps", "prior_filters", "prior_layers"), "prior_to_train")
    taken = {
        name for name, setting in settings.items() if getattr(model, setting, None) is not None
    }
    if type(model).__name__ == MODELS[plan.config.model]:
        taken.add("model")
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


# Training.


def _phases(plan, model):
    """That of the model itself, and that of its prior where it has one to train; both are made at once.

    So what is wrong with the second, such as its size, shows before the first.
    """
    if model.prior_to_train is None:
        return [Phase(plan, model)]
    of_prior = plan.of_prior
    prior = _ready(of_prior, model.prior_to_train(**plan.config.of_the_prior))
    return [Phase(plan, model), Phase(of_prior, prior, "prior")]


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


def _first_phase(phase, progress):
    """Train the model itself; the status in which that ends."""
    try:
        return phase.fit(progress)
    except KeyboardInterrupt:
        _remove(phase.plan)
        raise KeyboardInterrupt("Nothing was saved: training had not begun.") from None
    except (InvalidValueError, InvalidTypeError):
        if not phase.history.rows:
            _remove(phase.plan)
        raise


def _remove(plan):
    """Remove the run directory of a training that did not begin."""
    if not plan.resume:
        shutil.rmtree(plan.path)


def _finish(phases, status, record, progress, finish):
    """Keep what the first phase came to, train the prior where there is one to train, and save both."""
    first, *others = phases
    path, model = first.plan.path, first.model
    try:
        record |= first.kept(status)
        save_model(path / "model.keras", model)
        for second in others if status == "completed" else ():
            status = second.fit(progress)
            record["prior"] |= second.kept(status)
            save_model(path / "model.keras", model)
        record["status"] = status
        if status == "completed" and finish is not None:
            finish()
        runs.write_record(path, record)  # last: what counts as completed has all its files
    except KeyboardInterrupt:
        words = f"The training is kept: vae-tf train --resume {path} goes on from there."
        raise KeyboardInterrupt(words) from None
    return record | {"path": str(path)}
