"""The held-out-digit experiment on MNIST: mean AUROC over the ten digits, beside PCA's with 20 components.

    TFDS_DATA_DIR=... python benchmarks/anomaly.py DIR [--rows NAME ...] [--labels 0,1] [--steps N]

Each row is the command `vae-tf held-out` with its options, in a directory of its own in DIR; what is done
there is not done again. About 80 s a digit and row on 2 cores, of which 45 are training.

What counts is `vae` by the score reconstruction_error, the one that PCA has too. (Short trainings without 1, 4
and 9 were looked at when it became the first of the scores.) The scores by p(x) grow with the ink of a digit, so
that they take a 1 for normal, whatever they were trained on.
"""

import argparse
import json
import pathlib

from vae_tf.cli import main as command

ROWS = {
    "vae": (),
    "autoencoder": ("--model", "autoencoder"),
    "vae, binary": ("--binarize", "dynamic"),  # of which p(x) is a likelihood: the score nll, too
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path)
    parser.add_argument("--rows", nargs="*", default=["vae"], choices=list(ROWS))
    parser.add_argument("--labels")
    parser.add_argument("--steps")
    args = parser.parse_args()
    given = [f"--{name}={value}" for name in ("labels", "steps") if (value := getattr(args, name))]
    for row in args.rows:
        run = args.folder / row.replace(", ", "_")
        status = command(["held-out", "--dataset", "mnist", *ROWS[row], *given, "--run", str(run)])
        if status:
            raise SystemExit(status)
    for row in args.rows:
        show(row, args.folder / row.replace(", ", "_"))


def show(row, run):
    labels = json.loads((run / "results.json").read_text())["labels"]
    print(f"\n{row}: AUROC by held-out digit")
    names = list(next(iter(labels.values()))["scores"])
    print(f"{'':28}" + "".join(f"{label:>8}" for label in labels) + "    mean")
    for name in names:
        areas = [found["scores"][name]["auroc"][0] for found in labels.values()]
        row = "".join(f"{area:8.4f}" for area in areas)
        print(f"{name:28}{row}{sum(areas) / len(areas):8.4f}")


if __name__ == "__main__":
    main()
