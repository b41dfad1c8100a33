"""`vae-tf held-out`: its options, and what it prints."""

import sys

from vae_tf.applications.config import HeldOutConfig
from vae_tf.options import add_options, from_args

DESCRIPTION = """\
For each label in turn train a model on the images without it, by the options of vae-tf train, and judge
how well the model's scores tell test images of that label, beside PCA's reconstruction error. Results
are written after each label; the same command goes on after an interruption."""


def add_held_out(parts):
    parser = parts.add_parser(
        "held-out",
        help="train without each label in turn, and see whether the model knows it as anomalous",
        description=DESCRIPTION,
    )
    add_options(parser, HeldOutConfig)
    parser.set_defaults(run_command=run)


def run(args):
    import warnings

    from vae_tf import errors
    from vae_tf.applications.held_out import run_held_out
    from vae_tf.cli.evaluate import progress, show_section

    warnings.simplefilter("ignore", errors.GreyValuesWarning)
    config = from_args(HeldOutConfig, args)
    try:
        path, sections = run_held_out(
            config, progress, lambda line: print(errors.printable(line), flush=True)
        )
    except FloatingPointError as error:
        print(f"vae-tf held-out: error: training diverged. {error}", file=sys.stderr)
        return 1
    for section in sections:
        show_section(section)
    print()
    for name in ("report.html", "report.md", "metrics.json"):
        print(f"  {path / name}")
    return 0
