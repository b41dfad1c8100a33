"""Test −ELBO on MNIST's grey values: the rows of the README's table, three seeds each.

    TFDS_DATA_DIR=... python benchmarks/mnist_elbo.py [--out FILE] [--rows NAME ...]

Each run is a line of JSON in FILE as soon as it is done; runs that are there are not run again.
Prints the table at the end. About a minute a run on 2 cores.
"""

import argparse
import json
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from vae_tf import TrainConfig, train

ROWS = {
    "original": {"recipe": "original", "steps": 10_000},
    "default": {"recipe": "default", "steps": 10_000},
    "original, z = 2": {"recipe": "original", "steps": 10_000, "latent_dim": 2},
    "original, 400, z = 20": {
        "recipe": "original",
        "epochs": 10,
        "latent_dim": 20,
        "hidden_units": (400,),
        "batch_size": 128,
    },
}
SEEDS = (0, 1, 2)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="mnist_elbo.jsonl")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(line["row"], line["seed"]): line for line in map(json.loads, lines)}
    for row in args.rows:
        for seed in SEEDS:
            if (row, seed) not in done:
                done[row, seed] = measure(row, seed)
                with out.open("a") as file:
                    file.write(json.dumps(done[row, seed]) + "\n")
    for row in args.rows:
        losses = [done[row, seed]["loss"] for seed in SEEDS]
        print(
            f"{row:24} {np.mean(losses):7.2f}   seeds: {'  '.join(f'{loss:.2f}' for loss in losses)}"
        )


def measure(row, seed):
    """Train one run in a directory that is thrown away, and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(pathlib.Path(folder) / "run")
        record = train(TrainConfig(dataset="mnist", seed=seed, run=run, **ROWS[row]))
    return {
        "row": row,
        "seed": seed,
        **record["test"],
        "seconds": record["seconds"],
        "versions": record["versions"],
    }


if __name__ == "__main__":
    main()
