"""Images per second of a model's `fit` against a bare compiled loop over the same mathematics.

    python benchmarks/train_step.py [--model NAME] [--rounds N] [--epochs N]

One process, MNIST-shaped bytes, batch 100, Adam, each model with its default sizes (the VAE's are
784-512-384-256-10 and back). The candidates take turns, so that a shared machine's moods fall on all of
them; a ratio is the median over the rounds of one round's two times.

- fit(x): a plain `compile()` and `fit(x)` on a uint8 array, as a notebook has it.
- vae-tf train (vae): the same with the schedule and the callbacks of the default recipe.
- bare loop: the same mathematics written out in TensorFlow, with no Keras in it (`bare.py`): permutation,
  gather, noise, networks, gradients and Adam in one XLA-compiled loop. For iwae 5 decodings.
- without XLA: the same loop by TensorFlow's own kernels, which `fit` takes for convolutions.
- matrix products (vae): the network's products alone, forward and backward, in the order in which
  a step needs them, in one XLA-compiled loop. No bias, activation, loss, noise or optimizer.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from bare import BATCH, DENSE, LATENT, MODELS, PIXELS, bare_loop

import vae_tf
from vae_tf import load, training

SHAPES = [shape for shape, _ in DENSE]


def mnist_shaped_digits(num=60_000):
    """Handwritten digits of MNIST's shape: scikit-learn's 8×8, three times as large, moved about.

    Like MNIST, and unlike noise, they keep a black margin and have something to learn.
    """
    random = np.random.default_rng(0)
    digits = np.kron(load("digits").x_train[..., 0], np.ones((3, 3), np.uint8))
    x = np.zeros((num, 28, 28), np.uint8)
    for image, digit in zip(x, digits[random.integers(0, len(digits), num)], strict=True):
        top, left = random.integers(0, 5, 2)
        image[top : top + 24, left : left + 24] = digit
    return x.reshape(num, PIXELS)


def made(name):
    """A compiled model of its default sizes, its figures fixed."""
    if name == "vae-conv":
        model = vae_tf.VAE(latent_dim=LATENT, network="conv", seed=0)
    elif name == "codeprior":
        vqvae = vae_tf.VQVAE(seed=0)
        vqvae.build((None, 28, 28))
        model = vae_tf.CodePrior(vqvae, seed=0)
    else:
        kind = {name.lower(): name for name in vae_tf.__all__}[name]
        model = getattr(vae_tf, kind)(seed=0)
    model.compile()
    return model


def fit_on_arrays(name, x, y, epochs):
    model = made(name)
    labels = y if model.condition is not None else None
    return lambda: model.fit(x, labels, batch_size=BATCH, epochs=epochs, verbose=0)


def fit_as_the_command_does(x, epochs):
    vae = made("vae")
    vae.compile(training.RECIPES["default"].optimizer(2e-3, steps=10**6))
    hooks = training.callbacks(steps=10**9, warmup_steps=10**6)
    return lambda: vae.fit(x, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=hooks)


def matrix_products(x, steps):
    random = np.random.default_rng(0)
    weights = [
        tf.constant(random.normal(0, (1 / rows) ** 0.5, (rows, columns)), tf.float32)
        for rows, columns in SHAPES
    ]
    images = tf.reshape(
        tf.cast(tf.constant(x[: steps * BATCH]), tf.float32) / 255, (steps, BATCH, PIXELS)
    )

    @tf.function(jit_compile=True)
    def run(images, weights):
        def body(i, _):
            hidden, inputs, gradients = images[i], [], []
            for layer, weight in enumerate(weights):
                inputs.append(hidden[:, :LATENT] if layer == 4 else hidden)
                hidden = inputs[-1] @ weight
            for layer in reversed(range(8)):
                gradients.append(tf.matmul(inputs[layer], hidden, transpose_a=True))
                if layer:
                    hidden = tf.matmul(hidden, weights[layer], transpose_b=True)
                if layer == 4:
                    hidden = tf.pad(hidden, [[0, 0], [0, LATENT]])
            return i + 1, gradients[::-1]

        return tf.while_loop(
            lambda i, _: i < steps, body, (0, [tf.zeros_like(w) for w in weights])
        )[1]

    return lambda: float(run(images, weights)[0][0, 0])


def candidates(name, images, epochs):
    """By name the functions that take turns, each of `epochs` epochs."""
    x, steps = mnist_shaped_digits(images), images // BATCH
    y, bare = np.arange(images) % 10, MODELS["vae" if name == "betavae" else name]

    def turns(epoch):
        return lambda: [epoch() for _ in range(epochs)]

    found = {"fit(x)": fit_on_arrays(name, x.reshape(-1, 28, 28) if bare.conv else x, y, epochs)}
    if name == "vae":
        found["vae-tf train"] = fit_as_the_command_does(x, epochs)
    found["bare loop"] = turns(bare_loop(bare, x, y, steps))
    if bare.conv:
        found["without XLA"] = turns(bare_loop(bare, x, y, steps, xla=False))
    if name == "vae":
        found["matrix products"] = turns(matrix_products(x, steps))
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=(*MODELS, "betavae"), default="vae")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of all images in a turn")
    parser.add_argument("--images", type=int, default=60_000, help="images in an epoch")
    args = parser.parse_args()
    runs = candidates(args.model, args.images, args.epochs)
    seconds = {name: [] for name in runs}
    for turn in range(-1, args.rounds):  # the first turn compiles
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    report({name: np.array(values) for name, values in seconds.items()}, args)


def report(seconds, args):
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores, "
        f"{args.model}, {args.rounds} rounds of {args.epochs} epochs of {args.images // BATCH} "
        f"steps of {BATCH} images"
    )
    others = [name for name in ("bare loop", "without XLA", "matrix products") if name in seconds]
    heads = "".join(f"{'of ' + name:>20}" for name in others)
    print(f"{'':16} {'images/s':>9} {'(min':>8} {'max)':>8}{heads}")
    for name, values in seconds.items():
        rate = args.epochs * args.images / values
        ratios = "".join(f"{np.median(seconds[other] / values):20.3f}" for other in others)
        print(f"{name:16} {np.median(rate):9.0f} {rate.min():8.0f} {rate.max():8.0f}{ratios}")


if __name__ == "__main__":
    main()
