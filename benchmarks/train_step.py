"""Images per second of `VAE.fit` against a bare compiled loop and the matrix products alone.

    python benchmarks/train_step.py [--network dense|conv] [--rounds N] [--epochs N]

One process, MNIST-shaped bytes, batch 100, Adam. The dense network is the default one (784-512-384-256-10
and back), the convolutional one has 32 and 64 filters of 3×3 with stride 2. The candidates take
turns, so that a shared machine's moods fall on all of them; a ratio is the median over the rounds
of one round's two times.

- fit(x): a plain `compile()` and `fit(x)` on a uint8 array, as a notebook has it.
- vae-tf train: the same with the schedule and the callbacks of the default recipe.
- bare loop: the same mathematics written out in TensorFlow, with no Keras in it: permutation,
  gather, noise, both networks, gradients and Adam in one XLA-compiled loop.
- without XLA (conv): the same loop by TensorFlow's own kernels, which `fit` takes for convolutions.
- matrix products (dense): the network's products alone, forward and backward, in the order in which
  a step needs them, in one XLA-compiled loop. No bias, activation, loss, noise or optimizer.
"""

import argparse
import itertools
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from vae_tf import VAE, load, training

BATCH, PIXELS, LATENT = 100, 784, 10
ENCODER, DECODER = [PIXELS, 512, 384, 256, 2 * LATENT], [LATENT, 256, 384, 512, PIXELS]
SHAPES = [
    *itertools.pairwise(ENCODER),
    *itertools.pairwise(DECODER),
]
CONV_SHAPES = [  # of kernels, as Keras has them: those of transposed convolutions end with (out, in)
    *((3, 3, 1, 32), (3, 3, 32, 64), (7 * 7 * 64, 2 * LATENT), (LATENT, 7 * 7 * 64)),
    *((3, 3, 64, 64), (3, 3, 32, 64), (3, 3, 32, 1)),
]
CONV_BIASES = (32, 64, 2 * LATENT, 7 * 7 * 64, 64, 32, 1)


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


def fit_on_arrays(x, epochs, network="dense"):
    vae = VAE(latent_dim=LATENT, network=network, seed=0)
    vae.compile()
    return lambda: vae.fit(x, batch_size=BATCH, epochs=epochs, verbose=0)


def fit_as_the_command_does(x, epochs, network="dense"):
    vae = VAE(latent_dim=LATENT, network=network, seed=0)
    vae.compile(training.RECIPES["default"].optimizer(2e-3, steps=10**6))
    hooks = training.callbacks(steps=10**9, warmup_steps=10**6)
    return lambda: vae.fit(x, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=hooks)


def initial_weights(shapes, biases):
    random, weights = np.random.default_rng(0), []
    for shape, bias in zip(shapes, biases, strict=True):
        receptive = int(np.prod(shape[:-2]))
        bound = (6 / (receptive * sum(shape[-2:]))) ** 0.5
        weights += [random.uniform(-bound, bound, shape).astype("f"), np.zeros(bias, "f")]
    return [tf.constant(w) for w in weights]


def bare_loop(x, steps, weights, negative_elbo, xla=True):
    random = np.random.default_rng(0)
    state = [
        tf.constant(0.0),
        weights,
        [tf.zeros_like(w) for w in weights],
        [tf.zeros_like(w) for w in weights],
    ]
    images = tf.constant(x)

    @tf.function(jit_compile=xla)
    def run(order, seed, step, weights, means, squares):
        def body(i, step, weights, means, squares, total):
            batch = tf.cast(tf.gather(images, order[i]), tf.float32) / 255
            noise = tf.random.stateless_normal(
                (BATCH, LATENT), tf.stack([seed, tf.cast(step, tf.int32)])
            )
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = negative_elbo(weights, batch, noise)
            gradients = tape.gradient(loss, weights)
            step = step + 1
            rate = 1e-3 * tf.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            # The last gradient, times nothing: else XLA copies each weight before it changes it.
            rate += tf.minimum(tf.abs(tf.reshape(gradients[0], [-1])[0]), 0.0)
            means = [m + 0.1 * (g - m) for m, g in zip(means, gradients, strict=True)]
            squares = [v + 0.001 * (g * g - v) for v, g in zip(squares, gradients, strict=True)]
            weights = [
                w - rate * m / (tf.sqrt(v) + 1e-7)
                for w, m, v in zip(weights, means, squares, strict=True)
            ]
            return i + 1, step, weights, means, squares, total + loss

        start = (tf.constant(0), step, weights, means, squares, tf.constant(0.0))
        return tf.while_loop(lambda i, *_: i < steps, body, start)[1:]

    def epoch():
        order = random.permutation(len(x))[: steps * BATCH].reshape(steps, BATCH)
        *state[:], total = run(tf.constant(order), tf.constant(3), *state)
        return float(total) / steps

    return epoch


def negative_elbo(weights, x, noise):
    hidden = x
    for layer in range(8):
        hidden = hidden @ weights[2 * layer] + weights[2 * layer + 1]
        if layer == 3:
            z_mean, z_log_var = hidden[:, :LATENT], hidden[:, LATENT:]
            hidden = z_mean + tf.exp(0.5 * z_log_var) * noise
        elif layer < 7:
            hidden = tf.nn.relu(hidden)
    reconstruction = (
        tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=hidden)) / BATCH
    )
    return (
        reconstruction + 0.5 * tf.reduce_sum(tf.exp(z_log_var) + z_mean**2 - 1 - z_log_var) / BATCH
    )


def negative_elbo_conv(weights, x, noise):
    (c1, b1, c2, b2, code, b3, maps, b4, t1, b5, t2, b6, last, b7) = weights
    hidden = tf.nn.relu(tf.nn.conv2d(tf.reshape(x, (BATCH, 28, 28, 1)), c1, 2, "SAME") + b1)
    hidden = tf.nn.relu(tf.nn.conv2d(hidden, c2, 2, "SAME") + b2)
    z_mean, z_log_var = tf.split(tf.reshape(hidden, (BATCH, -1)) @ code + b3, 2, axis=1)
    hidden = tf.nn.relu((z_mean + tf.exp(0.5 * z_log_var) * noise) @ maps + b4)
    hidden = tf.reshape(hidden, (BATCH, 7, 7, 64))
    hidden = tf.nn.relu(tf.nn.conv2d_transpose(hidden, t1, (BATCH, 14, 14, 64), 2) + b5)
    hidden = tf.nn.relu(tf.nn.conv2d_transpose(hidden, t2, (BATCH, 28, 28, 32), 2) + b6)
    logits = tf.reshape(tf.nn.conv2d(hidden, last, 1, "SAME") + b7, (BATCH, PIXELS))
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
    kl = 0.5 * (tf.exp(z_log_var) + z_mean**2 - 1 - z_log_var)
    return (tf.reduce_sum(entropy) + tf.reduce_sum(kl)) / BATCH


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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=("dense", "conv"), default="dense")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of 60,000 images in a turn")
    parser.add_argument("--images", type=int, default=60_000, help="images in an epoch")
    args = parser.parse_args()
    x = mnist_shaped_digits(args.images)
    conv, steps = args.network == "conv", len(x) // BATCH
    if conv:
        weights, elbo = initial_weights(CONV_SHAPES, CONV_BIASES), negative_elbo_conv
    else:
        weights = initial_weights(SHAPES, [columns for _, columns in SHAPES])
        elbo = negative_elbo
    bare = bare_loop(x, steps, weights, elbo)
    images = x.reshape(-1, 28, 28) if conv else x
    candidates = {
        "fit(x)": fit_on_arrays(images, args.epochs, args.network),
        "vae-tf train": fit_as_the_command_does(images, args.epochs, args.network),
        "bare loop": lambda: [bare() for _ in range(args.epochs)],
    }
    if conv:
        kernels = bare_loop(x, steps, weights, elbo, xla=False)
        candidates["without XLA"] = lambda: [kernels() for _ in range(args.epochs)]
    else:
        products = matrix_products(x, steps)
        candidates["matrix products"] = lambda: [products() for _ in range(args.epochs)]
    seconds = {name: [] for name in candidates}
    for turn in range(-1, args.rounds):  # the first turn compiles
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    report({name: np.array(values) for name, values in seconds.items()}, args)


def report(seconds, args):
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores, "
        f"{args.network}, {args.rounds} rounds of {args.epochs} epochs of {args.images // BATCH} "
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
