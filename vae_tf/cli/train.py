"""`vae-tf train`: what it prints before, during and after."""

import sys
import warnings

from vae_tf.cli.commands import draw, interrupted
from vae_tf.errors import invalid
from vae_tf.options import flag, from_args, given
from vae_tf.training.config import TrainConfig

GREY = (
    "The images have grey values: their cross-entropy is a loss, and no log-likelihood. For figures "
    "that compare with\npublished log-likelihoods, train on binary images: --binarize dynamic, or fixed. "
    "A likelihood of the grey values\nthemselves is --likelihood continuous_bernoulli."
)


def run_train(args):
    from vae_tf import errors, training
    from vae_tf.engine import checkpoints

    warnings.simplefilter("ignore", errors.GreyValuesWarning)  # said here in the command's words
    plan = _plan(args)
    _announce(plan)
    try:
        record = training.train(plan)
    except checkpoints.CheckpointError as error:
        print(f"vae-tf train: error: {error}", file=sys.stderr)
        return 1
    except FloatingPointError as error:
        kept = checkpoints.checkpoint_paths(plan.path / "checkpoints")[:1]
        last = f"The last good checkpoint is {kept[0]}." if kept else "There is no checkpoint yet."
        print(f"vae-tf train: error: training diverged. {error} {last}", file=sys.stderr)
        return 1
    if record["status"] != "completed":
        saved = f"Saved the model and its history in {plan.path} ({record['status']})."
        next_step = f"vae-tf train --resume {plan.path}, or vae-tf plot {plan.path}"
        return interrupted(f"{saved}\nNext: {next_step}")
    print("Drawing ...", flush=True)
    model, pictures = draw(plan.path, plan.images)
    _summary(record, plan.path, model, pictures)
    return 0


def _plan(args):
    """What the options ask for: a new run, or an old one with its own options."""
    from vae_tf import training

    if args.resume is None:
        return training.prepare(from_args(TrainConfig, args))
    if names := given(TrainConfig, args):
        received = ", ".join(map(flag, names))
        raise invalid("resume", "no other option: a run goes on with its own", received)
    return training.prepare_resume(args.resume)


def _announce(plan):
    """Say what is about to be trained, on what, and what its figures will not mean."""
    images = plan.images
    shape = "×".join(map(str, images.image_shape))
    counts = f"{len(images.x_train)} training and {len(images.x_test)} test images of {shape}"
    held = f", {len(plan.watched.x_test)} of them held out" if plan.config.held_out else ""
    verb = "Going on to" if plan.resume else "Training"
    how = f"{verb} {plan.steps} steps of {plan.batch_size} images, recipe {plan.config.recipe}"
    print(f"{images.name}: {counts}{held}\n{how}, into {plan.path}", flush=True)
    if plan.config.binarize != "dynamic" and (words := _outside_the_support(plan)):
        print(words, flush=True)


def _outside_the_support(plan):
    """What to say of images whose values the likelihood is not of; None where they are."""
    from vae_tf.likelihoods import get_likelihood

    support = get_likelihood(plan.config.likelihood).support
    if support.contains(plan.images.x_train[:100]):
        return None
    if support.kind == "binary":
        return GREY
    return (
        f"The images have values that '{plan.config.likelihood}' is not of: the figures are no "
        "log-likelihoods."
    )


def _summary(record, path, model, pictures):
    """The figures of the test set, and where everything is."""
    from vae_tf.plots import term_label

    terms = dict(record["test"])
    name = "Test loss" if model.log_weights is None else "Test −ELBO"
    print(f"\n{name:16}  {terms.pop('loss'):8.2f} nats per image")
    for term, value in terms.items():
        print(f"  {term_label(term):14}  {value:8.2f}")
    best = f", the best after {record['best_step']}" if "best_step" in record else ""
    print(f"after {record['trained_steps']} steps in {record['seconds']:.0f} s{best}\n")
    names = ("config.json", "model.keras", "best.keras", "history.csv", "latent.csv")
    for file in [*(path / name for name in names), *pictures]:
        if file.exists():
            print(f"  {file}")
    print(f"\nNext: look at {path / 'reconstruct.png'}, then")
    print(f"  vae-tf generate {path} --num 64 --out grid.png")
    print(f"  vae-tf evaluate {path}\n  vae-tf export {path}")
