"""`vae-tf train`: what it prints before, during and after."""

import sys
import warnings

from vae_tf.cli.commands import draw, interrupted
from vae_tf.cli.quiet import import_tensorflow
from vae_tf.data import EMBEDDED
from vae_tf.errors import invalid
from vae_tf.options import flag, from_args, given
from vae_tf.training.config import TrainConfig
from vae_tf.training.fields import ACTIVATIONS, MODELS

GREY = (
    "The images have grey values: their cross-entropy is a loss, and no log-likelihood. For figures "
    "that compare with\npublished log-likelihoods, train on binary images: --binarize dynamic, or fixed. "
    "A likelihood of the grey values\nthemselves is --likelihood continuous_bernoulli."
)
COLOUR = (
    "The images are in colour: their cross-entropy is a loss, and no log-likelihood. A likelihood of "
    "colours is\n--likelihood gaussian, discretized_logistic or continuous_bernoulli."
)


def run_train(args):
    try:
        plan = _plan(args)  # before TensorFlow, which takes seconds to import
        import_tensorflow()
    except KeyboardInterrupt:
        return interrupted("Nothing was written.")
    from vae_tf import errors, training

    warnings.simplefilter("ignore", errors.GreyValuesWarning)  # said here in the command's words
    _announce(plan)
    drawn = []

    def finish():
        print("Drawing ...", flush=True)
        drawn.extend(draw(plan.path, plan.images))

    try:
        record = training.train(plan, finish=finish)
    except OSError as error:
        if not (plan.path / "config.json").is_file():  # nothing was begun
            raise
        print(f"vae-tf train: error: {_not_written(error, plan.path)}", file=sys.stderr)
        return 1
    except FloatingPointError as error:
        kept = training.runs.last_checkpoint(plan.path)
        last = f"The last good checkpoint is {kept}." if kept else "There is no checkpoint yet."
        print(f"vae-tf train: error: training diverged. {error} {last}", file=sys.stderr)
        return 1
    if record["status"] != "completed":
        saved = f"Saved the model and its history in {plan.path} ({record['status']})."
        next_step = f"vae-tf train --resume {plan.path}, or vae-tf plot {plan.path}"
        return interrupted(f"{saved}\nNext: {next_step}")
    _summary(record, plan.path, *drawn)
    return 0


def _not_written(error, path):
    """What to say of a file that could not be written, and what to do."""
    from vae_tf.engine.checkpoints import CheckpointError
    from vae_tf.training.runs import last_checkpoint

    if isinstance(error, CheckpointError):
        return error
    where = error.filename or "the standard output"
    kept = last_checkpoint(path)
    begin = f"from {kept}" if kept else "from the beginning"
    return (
        f"{error.strerror or error}: {where}. When that is mended, vae-tf train --resume {path} goes "
        f"on {begin}."
    )


def _plan(args):
    """What the options ask for: a new run, or an old one with its own options."""
    from vae_tf.training import plan

    if args.activation not in (None, *ACTIVATIONS):
        import_tensorflow()
    if args.resume is None:
        plan.check_new_run(config := from_args(TrainConfig, args))
        if config.data is None and config.dataset not in EMBEDDED:
            import_tensorflow()
        return plan.prepare(config)
    if names := given(TrainConfig, args):
        received = ", ".join(map(flag, names))
        raise invalid("resume", "no other option: a run goes on with its own", received)
    import_tensorflow()
    return plan.prepare_resume(args.resume)


def _announce(plan):
    """Say what is about to be trained, on what, and what its figures will not mean."""
    import vae_tf

    images = plan.images
    shape = "×".join(map(str, getattr(images, "whole_shape", images.image_shape)))
    counts = f"{len(images.x_train)} training and {len(images.x_test)} test images of {shape}"
    if plan.config.quadrants is not None:
        told = f"{images.y_train.shape[1]} values of each are given ({plan.config.quadrants} of 4 quadrants)"
        counts += f", {told}, {images.image_shape[0]} to be predicted"
    held = f", {len(plan.watched.x_test)} of them held out" if plan.config.held_out else ""
    if images.x_val is not None:
        held = f", and {len(images.x_val)} to validate on"
    verb = "Going on to" if plan.resume else "Training"
    how = f"{verb} {plan.steps} steps of {plan.batch_size} images"
    if getattr(vae_tf, MODELS[plan.config.model]).prior_to_train is not None:
        how += f", then {plan.of_prior.steps} of the prior over its codes"
    if plan.classes is not None:
        names = ", ".join(f"{number} {name}" for number, name in enumerate(plan.classes))
        print(f"Labels by number: {names}")
    print(
        f"{images.name}: {counts}{held}\n{how}, recipe {plan.config.recipe}, into {plan.path}",
        flush=True,
    )
    if plan.config.binarize != "dynamic" and (words := _outside_the_support(plan)):
        print(words, flush=True)


def _outside_the_support(plan):
    """What to say of images whose values the likelihood is not of; None where they are."""
    from vae_tf.data import some
    from vae_tf.likelihoods import get_likelihood

    if "likelihood" not in plan.config.of_the_model:  # it states none
        return None
    support = get_likelihood(plan.config.likelihood).support
    if support.contains(some(plan.images.x_train)):
        return None
    if support.kind == "binary":
        shape = getattr(plan.images, "whole_shape", plan.images.image_shape)
        return COLOUR if shape[-1] >= 3 else GREY
    return (
        f"The images have values that '{plan.config.likelihood}' is not of: the figures are no "
        "log-likelihoods."
    )


def _summary(record, path, model, pictures):
    """The figures of the test set, and where everything is."""
    name = "Test loss" if model.log_weights is None else "Test −ELBO"
    print(f"\n{_figures(name, record, model.unit)}")
    if "prior" in record:
        print(_figures("Its prior's loss", record["prior"], "nats"))
    print()
    names = ("config.json", "model.keras", "best.keras", "history.csv", "latent.csv")
    names += ("prior/history.csv",)
    for file in [*(path / name for name in names), *pictures]:
        if file.exists():
            print(f"  {file}")
    print(f"\nNext: look at {path / 'reconstruct.png'}, then")
    told = model.condition
    if model.sample_prior is not None and (told is None or told.num_classes):
        label = "" if told is None else " --label 0"
        print(f"  vae-tf generate {path}{label} --num 64 --out grid.png")
    print(f"  vae-tf evaluate {path}\n  vae-tf export {path}")


def _figures(name, found, unit):
    """The terms on the test images, and how long it took; `found` is of a phase of the training."""
    from vae_tf.plots import term_label

    terms, shown = dict(found["test"]), "loss"
    if "elbo_loss" in terms:  # the loss is another bound
        shown, terms["loss (−bound)"] = "elbo_loss", terms.pop("loss")
    lines = [f"{name:16}  {terms.pop(shown):8.2f} {unit} per image"]
    lines += [f"  {term_label(term):14}  {value:8.2f}" for term, value in terms.items()]
    best = f", the best after {found['best_step']}" if "best_step" in found else ""
    lines.append(f"after {found['trained_steps']} steps in {found['seconds']:.0f} s{best}")
    return "\n".join(lines)
