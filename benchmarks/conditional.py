"""The ConditionalVAE on MNIST's grey values: its bound, the rest of an image from quadrants, its samples' labels.

    TFDS_DATA_DIR=... python benchmarks/conditional.py DIR [--rows NAME ...] [--seeds 0 1 2]

Runs are trained into DIR, and one that was interrupted goes on; DIR/results.jsonl gets a line as soon as a row is done,
which is then not run again. About two minutes a run on 2 cores.

- `loss`: test −ELBO, one draw of z an image, as `VAE.evaluate` gives it.
- `named`: of 10,000 samples, 1,000 a label, how many a classifier gives their label; `classifier`: how many test images.
- `bound`, `importance_weighted`: −log p(rest | given) of the test images over the pixels that are not given, cross-entropy
  of grey values: at the mean of 100 draws of z, and weighted by importance. Pyro's example `cvae` (its quadrants, 500-500,
  z = 200, a baseline's guess given to its prior, the epoch taken that is best on these test images) publishes its bound
  at 10 draws: 71.8, 51.0, 24.2.
"""

import argparse
import json
import os
import pathlib
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from classifier import classifier

from vae_tf import TrainConfig, load_run, train
from vae_tf.errors import GreyValuesWarning
from vae_tf.training import prepare, prepare_resume, runs

PARTS = {"latent_dim": 50, "hidden_units": (500, 500)}
ROWS = {
    "vae": {"model": "vae"},
    "label": {},
    "label, learned prior": {"learned_prior": True},
    "label, beta 4": {"beta": 4.0},
    **{f"{num} of 4": {"quadrants": num, **PARTS} for num in (1, 2, 3)},
}
DRAWS = 100


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    args = parser.parse_args()
    warnings.simplefilter("ignore", GreyValuesWarning)
    folder = pathlib.Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "results.jsonl"
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(line["row"], line["seed"]): line for line in map(json.loads, lines)}
    for row in args.rows:
        for seed in args.seeds:
            if (row, seed) not in done:
                done[row, seed] = measure(folder, row, seed)
                with out.open("a") as file:
                    file.write(json.dumps(done[row, seed]) + "\n")
            print(json.dumps(done[row, seed]), flush=True)


def measure(folder, row, seed):
    path = folder / f"{row.replace(' ', '_').replace(',', '')}_{seed}"
    config = {"model": "conditionalvae", "dataset": "mnist", "steps": 10_000} | ROWS[row]
    if not (path / "model.keras").exists():
        new = not path.exists()
        plan = (
            prepare(TrainConfig(**config, seed=seed, run=str(path)))
            if new
            else prepare_resume(path)
        )
        train(plan, progress=False)
    record, model = load_run(path)
    images = runs.load_images(record)
    found = {"row": row, "seed": seed, **record["test"], "seconds": record["seconds"]}
    if "quadrants" in config:
        return found | bounds(model, images)
    return found | (labels(folder, model, images) if model.condition else {})


def bounds(model, parts):
    """−log p(rest | given), mean over the test images: at the draws' mean, and weighted."""
    weights = [
        model.log_weights(parts.x_test[i : i + 500], DRAWS, given=parts.y_test[i : i + 500], seed=0)
        for i in range(0, len(parts.x_test), 500)
    ]
    weights = np.concatenate(weights, axis=1).astype(np.float64)
    weighted = np.logaddexp.reduce(weights, axis=0) - np.log(DRAWS)
    return {"bound": -weights.mean(), "importance_weighted": -weighted.mean(), "draws": DRAWS}


def labels(folder, model, images):
    """How many samples the classifier gives the label that they were asked for."""
    judge, accuracy = classifier(images, folder / "classifier.keras")
    asked = np.repeat(np.arange(10), 1000)
    made = model.generate(len(asked), seed=0, label=asked)
    named = judge.predict(made, batch_size=500, verbose=0).argmax(axis=1) == asked
    return {"named": float(named.mean()), "classifier": accuracy}


if __name__ == "__main__":
    main()
