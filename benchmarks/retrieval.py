"""Mean average precision at 100 on MNIST: codes of 10 numbers against raw pixels, test images among training images.

    TFDS_DATA_DIR=... python benchmarks/retrieval.py DIR [--rows NAME ...] [--seeds 0 1 2] [--steps N] [--images N]

Each row and seed is a run in DIR, by the options below, searched by `vae-tf retrieve`; what is done there is
not done again. About a minute of training and a minute of search (half of it by raw pixels) on 2 cores.

What counts is `autoencoder`, 512-384-256, code 10, by Euclidean distance. A VAE's codes are
pushed together, to N(0, I): neighbours of other digits come nearer. The cosine, which is measured beside it for
codes and pixels alike, helps both.
"""

import argparse
import json
import pathlib

from vae_tf.cli import main as command

ROWS = {
    "autoencoder": ("--model", "autoencoder", "--latent-dim", "10"),
    "vae": ("--latent-dim", "10"),
}
METRICS = ("euclidean", "cosine")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="*", default=["0", "1", "2"])
    parser.add_argument("--steps")
    parser.add_argument("--images", help="only the first N test images")
    args = parser.parse_args()
    for row in args.rows:
        for seed in args.seeds:
            measure(args, row, seed)
    for row in args.rows:
        for metric in METRICS:
            show(args, row, metric)


def measure(args, row, seed):
    run = args.folder / f"{row}_{seed}"
    steps = ("--steps", args.steps) if args.steps else ()
    if not run.exists():
        check(["train", "--dataset", "mnist", *ROWS[row], *steps, "--seed", seed, "--run", run])
    for metric in METRICS:
        report = run / f"retrieve_{metric}"
        if not report.exists():
            images = ("--images", args.images) if args.images else ()
            options = ("--approximate", "--metric", metric, "--out", report)
            check(["retrieve", run, *options, *images])


def check(words):
    if status := command([str(word) for word in words]):
        raise SystemExit(status)


def show(args, row, metric):
    folders = [args.folder / f"{row}_{seed}" / f"retrieve_{metric}" for seed in args.seeds]
    found = [json.loads((folder / "metrics.json").read_text())["methods"] for folder in folders]
    print(f"\n{row}, {metric}: mAP@100 of each seed")
    for name in found[0]:
        values = "  ".join(
            f"{each[name]['map']:.4f} ({each[name]['seconds']:g} s)" for each in found
        )
        print(f"  {name:20}{values}")
    print(
        f"  {'recall':20}"
        + "  ".join(f"{each['code, approximate']['recall']:.4f}" for each in found)
    )


if __name__ == "__main__":
    main()
