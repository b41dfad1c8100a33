"""Lossless coding of binarised MNIST test images: the rate against the ELBO, and the time it takes.

    python benchmarks/compression.py RUN [--images N]

RUN is a VAE of binary images, such as the one of the README's log-likelihood:

    vae-tf train --dataset mnist --binarize dynamic --hidden-units 200,200 --activation tanh --latent-dim 50 --epochs 3000 --kl-warmup 200000

The file is read again in a process of its own. Two minutes or less for 10,000 images on 2 cores.
"""

import argparse
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from vae_tf import data, evaluation
from vae_tf.applications.lossless import compress
from vae_tf.training import runs

BAR = 0.17  # bits a pixel


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    record, model = runs.load_run(args.run)
    x = data.binarize(runs.load_images(record), seed=0).x_test[: args.images]
    elbo = evaluation.elbo(model, x)["elbo"].scaled(-1 / (math.log(2) * x[0].size))
    with tempfile.TemporaryDirectory() as folder:
        path, out = pathlib.Path(folder) / "images.bits", pathlib.Path(folder) / "images.npy"
        start = time.perf_counter()
        found = compress(model, x, path)
        seconds = time.perf_counter() - start
        words = [sys.executable, "-m", "vae_tf", "decompress", args.run, path, "--out", out]
        subprocess.run(words, check=True, capture_output=True)
        same = (np.load(out) == x).reshape(len(x), -1).all(axis=1).sum()
    print(f"images                        {len(x)}")
    print(f"come back in another process  {same}")
    print(f"−ELBO, bits a pixel           {elbo.mean:.5f} ± {elbo.standard_error:.5f}")
    print(
        f"coded, bits a pixel           {found.net_rate.mean:.5f} ({found.net_rate.mean / elbo.mean - 1:+.2%})"
    )
    print(f"the file, bits a pixel        {found.rate:.5f} (bar: {BAR})")
    print(f"initial bits, header          {found.initial_bits} bits, {found.header_bytes} bytes")
    print(f"the file                      {found.file_bytes:,} bytes")
    print(f"coded and decoded once in     {seconds:.1f} s")


if __name__ == "__main__":
    main()
