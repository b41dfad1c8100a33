"""The options of `vae-tf`, and what its help says."""

import argparse

from vae_tf import __version__
from vae_tf.cli import commands
from vae_tf.cli.applications import add_applications, run_decompress
from vae_tf.cli.evaluate import run_evaluate
from vae_tf.cli.generate import run_generate
from vae_tf.cli.serve import run_serve
from vae_tf.cli.train import run_train
from vae_tf.evaluation.config import EvaluateConfig
from vae_tf.options import add_options
from vae_tf.training.config import TrainConfig

DESCRIPTION = """\
Train a variational autoencoder on images, look at what it learned, export its decoder as a
SavedModel for TF Serving, generate images from either, and put the model to use."""

EXAMPLES = """\
examples:
  vae-tf train                                    digits that come with the installation
  vae-tf train --dataset mnist --latent-dim 2     any image data set of tensorflow-datasets
  vae-tf train --data photos/ --epochs 50         your own images
  vae-tf train --resume runs/digits_default_z5   go on after an interruption
  vae-tf evaluate runs/digits_default_z5         likelihoods with errors, codes, a report
  vae-tf export runs/digits_default_z5           a SavedModel in saved_models/
  vae-tf verify-export saved_models/digits_default_z5
  vae-tf serve saved_models/digits_default_z5    REST, gRPC and a page to look at
  vae-tf generate http://localhost:8501 --num 64 --seed 0 --out grid.png

  vae-tf denoise runs/digits_default_z5 --corruption masking --level 0.5
  vae-tf inpaint runs/digits_default_z5 --mask left
  vae-tf anomaly saved_models/digits_default_z5 --data new/
  vae-tf held-out --dataset mnist                 each label in turn as the anomaly
  vae-tf retrieve runs/digits_default_z5
  vae-tf cluster runs/digits_default_z5
  vae-tf variations runs/digits_default_z5 --kind path
  vae-tf compress runs/digits_default_z5
  vae-tf decompress runs/digits_default_z5 images.bits --out images.npz
"""

RECIPES = """\
recipes:
  default    Adam at 2e-3, β₂ 0.99, cosine decay; the KL's weight rises from 0 to 1 over the
             first 30 % of the steps
  original   Adam at 1e-3, held; no warm-up
"""


def build_parser():
    """The parser; `args.run_command(args)` does what was asked."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "vae-tf", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"vae-tf {__version__}")
    parser.set_defaults(needs_tensorflow=lambda args: True)
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(parts)
    plot = parts.add_parser(
        "plot",
        help="draw a run's pictures again",
        description="Draw the pictures of a run into its directory.",
    )
    plot.add_argument("run", metavar="RUN", help="a run directory")
    plot.set_defaults(run_command=commands.run_plot)
    _add_evaluate(parts)
    _add_export(parts)
    _add_verify_export(parts)
    _add_serve(parts)
    _add_generate(parts)
    add_applications(parts)
    _add_decompress(parts)
    return parser


def _add_decompress(parts):
    decompress = parts.add_parser(
        "decompress",
        help="read the images of a file that compress has written",
        description="Read the images of a file that vae-tf compress has written, bit for bit, with the run "
        "that it was written with. A damaged file, or one of another model, is refused, and nothing written.",
    )
    decompress.add_argument("run", metavar="RUN", help="a run directory")
    decompress.add_argument(
        "file", metavar="FILE", help="the file, such as RUN/compress/images.bits"
    )
    decompress.add_argument(
        "--out",
        default="images.npz",
        metavar="PATH",
        help="FILE.npz, with the array x, or FILE.npy; one that is there is replaced (default: images.npz)",
    )
    decompress.set_defaults(run_command=run_decompress)


def _add_export(parts):
    export = parts.add_parser(
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
    export.add_argument(
        "--with-encoder",
        action="store_true",
        help="also write the signatures encode, reconstruct and score",
    )
    export.set_defaults(run_command=commands.run_export)


def _add_verify_export(parts):
    verify = parts.add_parser(
        "verify-export",
        help="check a SavedModel as a stranger would",
        description="Load a SavedModel through TensorFlow's C API, without Keras, this package or TensorFlow's "
        "Python, and check its signatures, types, free batch sizes, seeds, operations and warm-up "
        "file; with --against, its values too. Exit status 1: a check failed.",
    )
    verify.add_argument(
        "saved_model",
        metavar="SAVED_MODEL",
        help="a SavedModel, or a directory of its versions, whose newest is taken",
    )
    verify.add_argument("--against", metavar="RUN", help="the run whose values it must give")
    verify.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="that loading and running it may take, before its process is killed (default: 300)",
    )
    verify.set_defaults(run_command=commands.run_verify_export)


def _add_serve(parts):
    serve = parts.add_parser(
        "serve",
        help="serve a SavedModel over TF Serving's REST and gRPC protocols",
        description="Serve the versions of an exported decoder: with TensorFlow Serving where it is installed, "
        "else with an embedded server that speaks the same protocols. New versions are picked up while "
        "it runs. Ctrl-C or SIGTERM ends it, after the requests that it has.",
    )
    serve.add_argument(
        "saved_model", metavar="SAVED_MODEL_DIR", help="a directory of versions, from vae-tf export"
    )
    serve.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "docker", "embedded"),
        default="auto",
        help="'tensorflow' is tensorflow_model_server, 'docker' its official image (default: the "
        "first where it is on the PATH, else embedded)",
    )
    serve.add_argument("--name", default="vae", help="the model's name in addresses (default: vae)")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen (default: 127.0.0.1, this machine only)",
    )
    serve.add_argument(
        "--rest-port", type=int, default=8501, metavar="N", help="default: 8501; 0 takes a free one"
    )
    serve.add_argument("--grpc-port", type=int, default=8500, metavar="N", help="default: 8500")
    serve.add_argument(
        "--label",
        action="append",
        type=_label,
        default=[],
        metavar="NAME=VERSION",
        help="a name for a version, which is then kept: --label stable=1 --label canary=2; with "
        "TensorFlow Serving the versions are then those of the start",
    )
    serve.add_argument(
        "--cors", action="store_true", help="let web pages from elsewhere ask, such as the explorer"
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which the embedded server may be asked, beside localhost, and whose pages may "
        "ask: that of a proxy or a tunnel. Without it, one that listens beyond this machine has any name",
    )
    _add_limits(serve)
    serve.set_defaults(run_command=run_serve, needs_tensorflow=lambda args: False)


def _add_limits(serve):
    limits = serve.add_argument_group("limits of the embedded server")
    limits.add_argument(
        "--max-batch", type=int, default=1024, metavar="N", help="rows of a request (default: 1024)"
    )
    limits.add_argument(
        "--max-request-mib", type=int, default=16, metavar="N", help="its size (default: 16)"
    )
    limits.add_argument(
        "--max-requests",
        type=int,
        default=64,
        metavar="N",
        help="at once; more are refused with 429 or RESOURCE_EXHAUSTED (default: 64)",
    )
    limits.add_argument(
        "--load-timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="for a version to load and warm up, before it is given up (default: 120)",
    )
    serve.add_argument(
        "--trust-model",
        action="store_true",
        help="let the embedded server load models with operations that vae-tf verify-export refuses: "
        "they can do to this machine what you can",
    )


def _label(text):
    name, _, number = text.partition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"expected NAME=VERSION. Received: {text!r}")
    return name, int(number)


def _add_train(parts):
    train = parts.add_parser(
        "train",
        help="train a model and leave a run directory",
        description="Train a variational autoencoder and leave a run directory with its configuration, "
        "model, history and pictures. Ctrl-C saves what there is.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=RECIPES,
    )
    add_options(train, TrainConfig)
    train.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with an interrupted run, from its last checkpoint, with its own options: the "
        "result is bit for bit that of the run that was never interrupted",
    )
    train.set_defaults(run_command=run_train, needs_tensorflow=lambda args: False)


def _add_evaluate(parts):
    evaluate = parts.add_parser(
        "evaluate",
        help="measure a run, and write a report",
        description="Measure a trained run: its bound and log-likelihood with their standard errors, what the "
        "code carries, how well images are reconstructed. Writes report.md, report.html (one file), "
        "metrics.json and pictures. Ctrl-C during the log-likelihood reports the images done so far.",
    )
    add_options(evaluate, EvaluateConfig)
    evaluate.set_defaults(run_command=run_evaluate)


def _add_generate(parts):
    generate = parts.add_parser(
        "generate",
        help="draw images from a run, a SavedModel or a server",
        description="Decode draws from the prior and save them: as a grid, as one file an image, or as an "
        "array. The same seed gives the same images, from a run, from its SavedModel and from a server "
        "of it. However many, they are drawn and written a part at a time.",
    )
    generate.add_argument(
        "source",
        metavar="RUN_OR_SAVED_MODEL_OR_URL",
        help="a run directory, a SavedModel, a directory of its versions, or a server: "
        "http://localhost:8501, grpc://localhost:8500",
    )
    generate.add_argument(
        "--num", type=int, default=64, metavar="N", help="how many images (default: 64)"
    )
    generate.add_argument(
        "--seed", type=int, default=0, metavar="N", help="what to draw (default: 0)"
    )
    generate.add_argument(
        "--label", type=int, metavar="N", help="of the images, for a model that is given labels"
    )
    generate.add_argument(
        "--out",
        default="generated.png",
        metavar="PATH",
        help="FILE.png: a grid at the images' own resolution; DIR: one PNG file an image; FILE.npy or "
        "FILE.npz: floats, with the arrays images, seeds and, given --label, labels (default: "
        "generated.png)",
    )
    generate.add_argument(
        "--model", default="vae", metavar="NAME", help="the model's name on a server (default: vae)"
    )
    generate.add_argument(
        "--trust-model",
        action="store_true",
        help="run a SavedModel with operations that vae-tf verify-export refuses",
    )
    generate.set_defaults(
        run_command=run_generate, needs_tensorflow=lambda args: "://" not in args.source
    )
