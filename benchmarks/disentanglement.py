"""What β buys: MIG, SAP and DCI of a BetaVAE with β = 1 and β = 4 on the sprites, five seeds each.

    python benchmarks/disentanglement.py [--out FILE] [--betas 1 4]

Every run is `vae-tf train --dataset sprites --model betavae --beta B --seed S` with the options of SETTING; the
figures are of all test images, as `vae-tf evaluate` gives them. Each run is a line of JSON in FILE as soon as it
is done; runs that are there are not run again. Prints the table at the end. A minute a run on one core.
"""

import argparse
import itertools
import json
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from vae_tf import TrainConfig, evaluation, load, load_run, train

SETTING = {
    "hidden_units": (256, 256),
    "steps": 6000,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "kl_warmup": 0,  # β is constant, as in the paper
}
SEEDS = (0, 1, 2, 3, 4)
FIGURES = ("mig", "sap", "disentanglement", "completeness", "informativeness", "loss", "active")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="disentanglement.jsonl")
    parser.add_argument("--betas", nargs="*", type=float, default=[1.0, 4.0])
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(line["beta"], line["seed"]): line for line in map(json.loads, lines)}
    for beta, seed in itertools.product(args.betas, SEEDS):
        if (beta, seed) not in done:
            done[beta, seed] = measure(beta, seed)
            with out.open("a") as file:
                file.write(json.dumps(done[beta, seed]) + "\n")
    show({beta: [done[beta, seed] for seed in SEEDS] for beta in args.betas})


def measure(beta, seed):
    """Train one run in a directory that is thrown away, and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(pathlib.Path(folder) / "run")
        config = {"beta": beta, "seed": seed, "run": run, **SETTING}
        record = train(TrainConfig(dataset="sprites", model="betavae", **config))
        _, model = load_run(run)
    images = load("sprites")
    z_mean, _ = evaluation.codes(model, images.x_test)
    factors, categorical = images.factors_test, images.categorical
    dci = evaluation.dci(z_mean, factors)
    return {
        "beta": beta,
        "seed": seed,
        "mig": evaluation.mig(z_mean, factors),
        "sap": evaluation.sap(z_mean, factors, categorical),
        "disentanglement": dci.disentanglement,
        "completeness": dci.completeness,
        "informativeness": dci.informativeness,
        "active": int((z_mean.var(axis=0) > evaluation.ACTIVE).sum()),
        **record["test"],
        "seconds": record["seconds"],
        "versions": record["versions"],
    }


def show(rows):
    """Mean ± standard deviation over the seeds, and the MIG of each."""
    print(f"{'':8}" + "".join(f"{name:>18}" for name in FIGURES))
    for beta, lines in rows.items():
        values = np.array([[line[name] for name in FIGURES] for line in lines])
        pairs = zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
        print(f"β = {beta:<4g}" + "".join(f"{f'{mean:.3f} ± {sd:.3f}':>18}" for mean, sd in pairs))
    for beta, lines in rows.items():
        print(f"β = {beta:<4g} MIG: " + "  ".join(f"{line['mig']:.3f}" for line in lines))


if __name__ == "__main__":
    main()
