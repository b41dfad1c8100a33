"""The command line `vae-tf`: parsing and printing only. Heavy imports wait until they are needed."""

import argparse
import contextlib
import os
import pathlib
import shlex
import sys
import tempfile
import time
import warnings

DESCRIPTION = """\
Train a variational autoencoder on images, look at what it learned, export its decoder as a
SavedModel for TF Serving, and generate images from either."""

OPTIONS = (  # of `train`, each a field of `TrainConfig`, where the defaults are
    "dataset", "data", "binarize", "likelihood", "recipe", "latent_dim", "hidden_units", "activation",
    "batch_size", "epochs", "steps", "learning_rate", "clip_norm", "kl_warmup", "beta", "free_bits",
    "validation", "early_stopping", "seed", "checkpoint_every", "tensorboard", "run",
)  # fmt: skip

GREY = (
    "The images have grey values: their cross-entropy is a loss, and no log-likelihood. For figures "
    "that compare with\npublished log-likelihoods, train on binary images: --binarize dynamic, or fixed."
)

_UNUSABLE_PATHS = (
    FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError,
)  # fmt: skip

EXAMPLES = """\
examples:
  vae-tf train                                    digits that come with the installation
  vae-tf train --dataset mnist --latent-dim 2     any image data set of tensorflow-datasets
  vae-tf train --data photos/ --epochs 50         your own images, all of one size
  vae-tf train --resume runs/digits_default_z10   go on after an interruption
  vae-tf evaluate runs/digits_default_z10         likelihoods with errors, codes, a report
  vae-tf export runs/digits_default_z10           a SavedModel in saved_models/
  vae-tf generate saved_models/digits_default_z10 --num 64 --seed 0 --out grid.png
"""


def main(argv=None):
    """Run the command; returns its exit status. 2: something in the call cannot be used."""
    args = _parser().parse_args(argv)
    try:
        _import_quietly()
        from vae_tf.errors import InvalidTypeError, InvalidValueError
    except KeyboardInterrupt:
        return _interrupted("Nothing was written.")
    warnings.formatwarning = lambda message, *_: f"vae-tf {args.command}: warning: {message}\n"
    args.words = shlex.join(["vae-tf", *(sys.argv[1:] if argv is None else argv)])
    try:
        return args.run_command(args)
    except (InvalidValueError, InvalidTypeError) as error:
        print(f"vae-tf {args.command}: error: {error}", file=sys.stderr)
        return 2
    except _UNUSABLE_PATHS as error:
        print(f"vae-tf {args.command}: error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        return _interrupted(str(interrupt))


def _interrupted(message=""):
    print(f"\nInterrupted. {message}".rstrip(), file=sys.stderr)
    return 130


def _parser():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "vae-tf", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    plot = commands.add_parser(
        "plot",
        help="draw a run's pictures again",
        description="Draw the pictures of a run into its directory.",
    )
    plot.add_argument("run", metavar="RUN", help="a run directory")
    plot.set_defaults(run_command=_plot)
    _add_evaluate(commands)
    export = commands.add_parser(
        "export",
        help="write a run's decoder as a SavedModel",
        description="Write the trained decoder to DIR/<version>/, which TF Serving loads as it is. "
        "Versions are counted from 1; an existing one is never overwritten.",
    )
    export.add_argument("run", metavar="RUN", help="a run directory")
    export.add_argument(
        "--out",
        metavar="DIR",
        help="where the versions go (default: saved_models/<name of the run>)",
    )
    export.add_argument(
        "--version", metavar="N", type=int, help="the version (default: the next free one)"
    )
    export.set_defaults(run_command=_export)
    generate = commands.add_parser(
        "generate",
        help="draw images from a run or a SavedModel",
        description="Decode draws from the prior and save them as one picture. The same seed gives the "
        "same images, from a run and from its SavedModel alike.",
    )
    generate.add_argument(
        "source",
        metavar="RUN_OR_SAVED_MODEL",
        help="a run directory, a SavedModel, or a directory of its versions",
    )
    generate.add_argument(
        "--num", type=int, default=64, metavar="N", help="how many images (default: 64)"
    )
    generate.add_argument(
        "--seed", type=int, default=0, metavar="N", help="what to draw (default: 0)"
    )
    generate.add_argument(
        "--out",
        default="generated.png",
        metavar="FILE",
        help="the picture (default: generated.png)",
    )
    generate.set_defaults(run_command=_generate)
    return parser


def _add_train(commands):
    train = commands.add_parser(
        "train",
        help="train a model and leave a run directory",
        description="Train a variational autoencoder and leave a run directory with its configuration, "
        "model, history and pictures. Ctrl-C saves what there is.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="recipes:\n"
        "  default    Adam at 2e-3, β₂ 0.99, cosine decay; the KL's weight rises from 0 to 1 over the\n"
        "             first 30 % of the steps\n"
        "  original   Adam at 1e-3, held; no warm-up\n",
    )
    source = train.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset",
        metavar="NAME",
        help="'digits' (default: 8×8, no download) or an image data set of tensorflow-datasets, such as mnist",
    )
    source.add_argument("--data", metavar="PATH", help="your own images: a .npz file or a folder")
    train.add_argument(
        "--binarize",
        metavar="HOW",
        help="binary images from grey ones: 'dynamic' draws them anew each time, 'fixed' once, 'none' "
        "(default) keeps the grey values",
    )
    train.add_argument(
        "--likelihood",
        metavar="NAME",
        help="p(x|z): 'bernoulli' (default) or 'gaussian', with one learned σ",
    )
    train.add_argument(
        "--recipe", metavar="NAME", help="'default' (by default) or 'original', see below"
    )
    train.add_argument(
        "--latent-dim",
        type=int,
        metavar="N",
        help="the size of the code z (default: 10)",
    )
    train.add_argument(
        "--hidden-units",
        type=_hidden_units,
        metavar="N,N,...",
        help="widths of the encoder's hidden layers, mirrored by the decoder (default: 512,384,256; 'none' for a linear model)",
    )
    train.add_argument(
        "--activation", metavar="NAME", help="of the hidden layers, any of Keras's (default: relu)"
    )
    train.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images in a step (default: 100, or all where there are fewer)",
    )
    length = train.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, metavar="N", help="passes over the training images")
    length.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="gradient steps (default: 10000, but no more than 200 epochs)",
    )
    train.add_argument(
        "--learning-rate", type=float, metavar="X", help="Adam's (default: the recipe's)"
    )
    train.add_argument(
        "--clip-norm",
        type=float,
        metavar="X",
        help="scale gradients whose norm is above X down to X (default: never)",
    )
    train.add_argument(
        "--kl-warmup",
        type=int,
        metavar="STEPS",
        help="raise the KL's weight β from 0 over so many steps (default: the recipe's)",
    )
    train.add_argument("--beta", type=float, metavar="X", help="to which β rises (default: 1)")
    train.add_argument(
        "--free-bits",
        type=float,
        metavar="NATS",
        help="KL that each latent dimension has at no cost (default: 0)",
    )
    train.add_argument(
        "--validation",
        type=float,
        metavar="FRACTION",
        help="hold out a part of the training images, and watch it instead of the test images",
    )
    train.add_argument(
        "--early-stopping",
        type=int,
        metavar="EPOCHS",
        help="stop when so many epochs in a row have not lowered the loss on held-out images "
        "(--validation, here 0.1 by default), and keep the best model",
    )
    train.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="fixes weights, noise and order: the same seed gives the same run (default: 0)",
    )
    train.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="N",
        help="steps between checkpoints, of which the last three are kept (default: 1000)",
    )
    train.add_argument(
        "--tensorboard",
        action="store_true",
        default=None,
        help="write the epochs' figures for TensorBoard, to RUN/tensorboard",
    )
    train.add_argument(
        "--run",
        metavar="DIR",
        help="the run directory, which must not exist (default: runs/<data>_<recipe>_z<latent dim>)",
    )
    train.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with an interrupted run, from its last checkpoint, with its own options: the "
        "result is bit for bit that of the run that was never interrupted",
    )
    train.set_defaults(run_command=_train)


def _add_evaluate(commands):
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a run, and write a report",
        description="Measure a trained run: its bound and log-likelihood with their standard errors, what the "
        "code carries, how well images are reconstructed. Writes report.md, report.html (one file), "
        "metrics.json and pictures. Ctrl-C during the log-likelihood reports the images done so far.",
    )
    evaluate.add_argument("run", metavar="RUN", help="a run directory")
    source = evaluate.add_mutually_exclusive_group()
    source.add_argument("--dataset", metavar="NAME", help="other images than the run's, by name")
    source.add_argument("--data", metavar="PATH", help="other images: a .npz file or a folder")
    evaluate.add_argument("--split", metavar="NAME", help="'test' (default) or 'train'")
    evaluate.add_argument(
        "--binarize",
        metavar="HOW",
        help="'dynamic' draws binary images by the seed, 'fixed' takes the one draw of all runs, 'none' "
        "keeps them (default: as the run was trained)",
    )
    evaluate.add_argument(
        "--num-samples",
        type=int,
        metavar="K",
        help="importance samples an image for log p(x) (default: 5000)",
    )
    evaluate.add_argument(
        "--measures",
        type=lambda text: tuple(text.split(",")),
        metavar="NAME,...",
        help="some of elbo, likelihood, latent, reconstruction, neighbours (default: what applies)",
    )
    evaluate.add_argument(
        "--images", type=int, metavar="N", help="only the first N images (default: all)"
    )
    evaluate.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images at once; changes no figure (default: 20)",
    )
    evaluate.add_argument("--seed", type=int, metavar="N", help="fixes every draw (default: 0)")
    evaluate.add_argument(
        "--out",
        metavar="DIR",
        help="the report's directory, which must not exist (default: RUN/evaluation, then numbered)",
    )
    evaluate.set_defaults(run_command=_evaluate)


def _hidden_units(text):
    """'512,384,256' to a tuple; 'none' or '' to an empty one."""
    if text.strip().lower() in ("none", ""):
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected widths such as 512,384,256, or none. Received: {text!r}"
        ) from None


def _import_quietly():
    """Import TensorFlow with what it says about missing GPUs kept back, unless it fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with tempfile.TemporaryFile() as file, _redirected_stderr(file):
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            tf.zeros(())
        except BaseException:
            file.seek(0)
            sys.__stderr__.write(file.read().decode(errors="replace"))
            raise


@contextlib.contextmanager
def _redirected_stderr(file):
    """Send file descriptor 2, to which native code writes, to `file`."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _train(args):
    from vae_tf import checkpoints, data, errors, training

    warnings.simplefilter("ignore", errors.GreyValuesWarning)  # the summary says it
    plan = _plan(args)
    images = plan.images
    shape = "×".join(map(str, images.image_shape))
    counts = f"{len(images.x_train)} training and {len(images.x_test)} test images of {shape}"
    verb = "Going on to" if plan.resume else "Training"
    how = f"{verb} {plan.steps} steps of {plan.batch_size} images, recipe {plan.config.recipe}"
    held = f", {len(plan.watched.x_test)} of them held out" if plan.config.held_out else ""
    print(f"{images.name}: {counts}{held}\n{how}, into {plan.path}", flush=True)
    grey = plan.config.likelihood == "bernoulli" and plan.config.binarize == "none"
    if grey and data.is_grey(images.x_train[:100]):
        print(GREY, flush=True)
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
        return _interrupted(
            f"Saved the model and its history in {plan.path} ({record['status']}).\n"
            f"Next: vae-tf train --resume {plan.path}, or vae-tf plot {plan.path}"
        )
    print("Drawing ...", flush=True)
    paths = _draw(plan.path, images)
    _summary(record, plan.path, paths)
    return 0


def _plan(args):
    """What the options ask for: a new run, or an old one with its own options."""
    from vae_tf import training
    from vae_tf.errors import invalid

    given = {
        key: value for key, value in vars(args).items() if key in OPTIONS and value is not None
    }
    if args.resume is None:
        return training.prepare(training.TrainConfig(**given))
    if given:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise invalid("resume", "no other option: a run goes on with its own", names)
    return training.prepare_resume(args.resume)


def _draw(path, images=None):
    """Draw the pictures of a run; its images are loaded again where they are not at hand."""
    from vae_tf import data, plots, runs

    record, model = runs.load_run(path)
    images = runs.load_images(record) if images is None else images
    if model.binarize is not None:
        images = data.binarize(images)
    return plots.draw(path, model, images, runs.load_history(path), record["config"]["seed"])


def _summary(record, path, pictures):
    test = record["test"]
    print(f"\nTest −ELBO        {test['loss']:8.2f} nats per image")
    print(f"  reconstruction  {test['reconstruction_loss']:8.2f}")
    print(f"  KL              {test['kl_loss']:8.2f}")
    best = f", the best after {record['best_step']}" if "best_step" in record else ""
    print(f"after {record['trained_steps']} steps in {record['seconds']:.0f} s{best}\n")
    for name in ("config.json", "model.keras", "best.keras", "history.csv", "latent.csv"):
        print(f"  {path / name}")
    for picture in pictures:
        print(f"  {picture}")
    print(
        f"\nNext: look at {path / 'reconstruct.png'}, then\n  vae-tf generate {path} --num 64 --out grid.png\n  vae-tf evaluate {path}\n  vae-tf export {path}"
    )


def _plot(args):
    for path in _draw(pathlib.Path(args.run)):
        print(path)
    return 0


def _evaluate(args):
    from vae_tf import assessment

    fields = assessment.EvaluateConfig.__dataclass_fields__
    given = {key: value for key, value in vars(args).items() if key in fields and value is not None}
    prepared = assessment.prepare(assessment.EvaluateConfig(**given))
    images = prepared.images
    print(
        f"{args.run}: {len(prepared.x)} {prepared.config.split} images of {images.name}", flush=True
    )
    metrics, sections = assessment.assess(prepared, _progress(), args.words)
    for section in sections[:-2]:
        print(f"\n{section.title}")
        for name, value in section.rows:
            print(f"  {name:44}  {value}")
        if not section.rows:
            print(f"  {section.text}")
    print(f"\n  {prepared.path / 'report.html'}")
    for name in ("report.md", "metrics.json"):
        print(f"  {prepared.path / name}")
    done = metrics.get("likelihood", {}).get("images", len(prepared.x))
    if done < len(prepared.x):
        return _interrupted(f"The log-likelihood is of {done} of {len(prepared.x)} images.")
    return 0


def _progress():
    """A function that shows what an evaluation is at: a line that is redrawn on a terminal."""
    live, shown, start = sys.stderr.isatty(), {}, {}

    def show(name, done, total):
        start.setdefault(name, time.perf_counter())
        tenth = 10 * done // total
        if not live and shown.get(name) == tenth:
            return
        shown[name] = tenth
        left = (time.perf_counter() - start[name]) / done * (total - done) if done else None
        line = (
            f"{name} ..." if left is None else f"{name}: {done}/{total} images  {left:.0f} s left"
        )
        text, end = (f"\r{line:<70}", "\r" if total == 1 else "") if live else (line, "\n")
        print(text, end=end, file=sys.stderr, flush=True)

    return show


def _export(args):
    from vae_tf import export, runs

    _, model = runs.load_run(args.run)
    out = args.out or pathlib.Path("saved_models") / pathlib.Path(args.run).resolve().name
    target = export.export_decoder(model, out, args.version)
    print(
        f"{target}: signatures serving_default (z -> probabilities), generate (seed -> images, z)"
    )
    print(f"Next: vae-tf generate {target.parent} --num 64 --out grid.png")
    return 0


def _generate(args):
    from vae_tf import export, plots, runs
    from vae_tf.errors import check_positive_int, invalid

    check_positive_int("num", args.num)
    check_positive_int("seed", args.seed, minimum=0)
    source, out = pathlib.Path(args.source), pathlib.Path(args.out)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise invalid("out", "a file ending in .png, .jpg, .pdf or .svg", repr(args.out))
    if out.is_dir() or not out.parent.is_dir():
        raise invalid("out", "a file in a directory that exists", repr(args.out))
    if (source / "config.json").is_file():
        images = runs.load_run(source)[1].generate(args.num, args.seed)
    elif export.find_saved_model(source):
        images = export.generate_from_saved_model(source, args.num, args.seed)
    else:
        raise invalid(
            "source",
            "a run directory, a SavedModel, or a directory of its versions",
            repr(args.source),
            "vae-tf train makes a run.",
        )
    plots.generated(images, f"{args.num} images, seed {args.seed}").savefig(out, dpi=120)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
