"""A VQVAE and its prior on MNIST: 128 codes of 16 dimensions, a 7×7 map, 30 epochs.

    TFDS_DATA_DIR=... python benchmarks/vqvae.py [--out DIR] [--rows NAME ...] [--epochs N]

Each row is a run in DIR, which goes on where it was interrupted; its figures are a line of JSON in
DIR/vqvae.jsonl. Printed at the end: the squared error of the test images' reconstructions ÷ the variance of
the training pixels (as keras.io's example of a VQ-VAE has it, whose 0.0444 is of its training images), the
perplexity of the code usage over the test images, the prior's bits per code on them (log2(128) is 7), and
the mean confidence of a classifier in 1,000 samples.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from classifier import classifier

from vae_tf import TrainConfig, load, load_run, train
from vae_tf.training import prepare, prepare_resume
from vae_tf.training.runs import load_record

ROWS = {  # options of `vae-tf train --dataset mnist --model vqvae`
    "default": {},
    "one block": {"residual_blocks": 1},
    "no blocks": {"residual_blocks": 0},
    "larger prior": {"prior_filters": 128, "prior_layers": 8},
    "gaussian": {"likelihood": "gaussian"},
    "by a loss": {"codebook": "loss"},
    "commitment 1": {"commitment_cost": 1.0},
}
SHOWN = ("squared_error", "perplexity", "bits_per_code", "confidence")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("vqvae_runs"))
    parser.add_argument("--rows", nargs="*", default=["default"], choices=list(ROWS))
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    file, images = args.out / "vqvae.jsonl", load("mnist")
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(line["row"], line["epochs"]): line for line in map(json.loads, lines)}
    for row in args.rows:
        if (row, args.epochs) not in done:
            run = args.out / f"{row} {args.epochs}".replace(" ", "_")
            _train(run, args.epochs, ROWS[row])
            found = _measured(run, images, args.out)
            done[row, args.epochs] = {"row": row, "epochs": args.epochs, **found}
            with file.open("a") as out:
                out.write(json.dumps(done[row, args.epochs]) + "\n")
        figures = (f"{name} {done[row, args.epochs][name]:.4g}" for name in SHOWN)
        print(f"{row:16}", *figures, sep="   ")


def _train(run, epochs, options):
    config = TrainConfig(dataset="mnist", model="vqvae", epochs=epochs, run=str(run), **options)
    if not run.exists():
        train(prepare(config))
    elif load_record(run)["status"] != "completed":
        train(prepare_resume(run))


def _measured(run, images, out):
    record, model = load_run(run)
    x = images.x_test
    error = np.mean((model.reconstruct(x) - x / 255.0) ** 2) / np.var(images.x_train / 255.0)
    counts = np.bincount(model.codes(x).ravel(), minlength=model.quantizer.num_embeddings)
    shares = counts[counts > 0] / counts.sum()
    judge, accuracy = classifier(images, out / "classifier.keras")
    confidence = judge.predict(model.generate(1000, seed=0), verbose=0).max(axis=1).mean()
    return {
        "squared_error": float(error),
        "perplexity": float(np.exp(-np.sum(shares * np.log(shares)))),
        "bits_per_code": record["prior"]["test"]["bits_per_code"],
        "confidence": float(confidence),
        "accuracy_of_the_classifier": accuracy,
        "confidence_in_test_images": float(judge.predict(x / 255.0, verbose=0).max(axis=1).mean()),
        "seconds": [record["seconds"], record["prior"]["seconds"]],
        "versions": record["versions"],
    }


if __name__ == "__main__":
    main()
