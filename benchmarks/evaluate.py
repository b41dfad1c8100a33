"""Time of the log-likelihood's 5,000 samples an image against the decoder's matrix products alone.

    python benchmarks/evaluate.py [--rounds N] [--images N]

One process, the default network (z of 10, 256-384-512, 784 pixels), binary images. The candidates
take turns; a ratio is the median over the rounds of one round's two times. The products are done in
an XLA-compiled loop on as many rows at once as is quickest of three choices. Last, the peak of the
resident memory above what there was with the model and the images in place.
"""

import argparse
import itertools
import os
import pathlib
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from vae_tf import VAE, evaluation

SHAPES = list(itertools.pairwise([10, 256, 384, 512, 784]))
SAMPLES = 5000


def trained_model(x):
    """A model that has seen the images for some epochs: its logits are those of training."""
    model = VAE(latent_dim=10, seed=0)
    model.compile()
    model.fit(x, epochs=20, verbose=0)
    return model


def binary_images(num=2000):
    """Strokes of MNIST's shape and share of white, one in eight."""
    random = np.random.default_rng(0)
    x = np.zeros((num, 28, 28), bool)
    for image, top, left in zip(x, *random.integers(4, 14, (2, num)), strict=True):
        image[top : top + 10, left : left + 10] = random.random((10, 10)) < 0.9
    return x


def matrix_products(rows, decodings):
    random = np.random.default_rng(0)
    weights = [tf.constant(random.normal(0, 0.05, shape), tf.float32) for shape in SHAPES]
    codes = tf.constant(random.normal(size=(rows, 10)), tf.float32)

    @tf.function(jit_compile=True)
    def run(codes, weights):
        def body(i, total):
            hidden = codes + total[0, 0] * 0  # no two turns of the loop are the same
            for weight in weights:
                hidden = hidden @ weight
            return i + 1, hidden

        return tf.while_loop(
            lambda i, _: i < decodings // rows, body, (0, tf.zeros((rows, SHAPES[-1][1])))
        )[1]

    return lambda: run(codes, weights).numpy()


def seconds_of(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def memory(name):
    """Of this process, in MiB: VmRSS, what it has now, or VmHWM, the most that it had (Linux)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    x = binary_images()
    model = trained_model(x)
    x = x[: args.images]
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here
    before = memory("VmRSS")
    decodings = len(x) * SAMPLES
    evaluate = lambda: evaluation.log_likelihood(model, x, SAMPLES)  # noqa: E731
    evaluate()
    above = memory("VmHWM") - before
    products = {rows: matrix_products(rows, decodings) for rows in (500, 1000, 2000)}
    times = {rows: [seconds_of(run) for _ in range(3)][-1] for rows, run in products.items()}
    rows = min(times, key=times.get)
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(seconds_of(evaluate))
        theirs.append(seconds_of(products[rows]))
    ours, theirs = np.array(ours), np.array(theirs)
    ratio = ours / theirs
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores, "
        f"{args.rounds} rounds of {len(x)} images, {SAMPLES} samples each"
    )
    print(f"decodings a second: {decodings / np.median(ours):.0f}; products, {rows} rows at once: "
          f"{decodings / np.median(theirs):.0f}")  # fmt: skip
    print(f"of the products' time: {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})")
    print(f"10,000 images would take {1e4 / len(x) * np.median(ours):.0f} s")
    print(f"peak memory above the model: {above:.0f} MiB")


if __name__ == "__main__":
    main()
