"""The models' mathematics written out in TensorFlow, with no Keras in it: what `train_step.py` compares with.

Each `Bare` is a model of the package with its default sizes, on images of 28×28.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

BATCH, PIXELS, LATENT, CLASSES, SAMPLES = 100, 784, 10, 10, 5
CODES, DIM = 128, 16  # of the vector quantised one
relu = tf.nn.relu


@dataclasses.dataclass(frozen=True)
class Bare:
    """A model's shapes and its loss.

    shapes: of the kernels, as Keras has them, each with its bias; an int has a table of so many rows.
    noise: the shape of a step's normal numbers.
    loss: `loss(weights, tables, x, y, noise)` gives the loss, and the tables that follow it.
    tables: what is not trained, such as the averages of a codebook.
    """

    shapes: list
    noise: tuple
    loss: Callable
    tables: tuple = ()
    conv: bool = False


def initial_weights(shapes):
    random, weights = np.random.default_rng(0), []
    for shape, out in shapes:
        receptive = int(np.prod(shape[:-2]))
        bound = (6 / (receptive * sum(shape[-2:]))) ** 0.5
        weights.append(random.uniform(-bound, bound, shape).astype("f"))
        weights += [np.zeros(out, "f")] if out else []
    return [tf.constant(w) for w in weights]


def bare_loop(bare, x, y, steps, xla=True):
    """A function that makes `steps` steps: permutation, gather, noise, gradients and Adam in one loop."""
    random, weights = np.random.default_rng(0), initial_weights(bare.shapes)
    zeros = [tf.zeros_like(w) for w in weights]
    state = [tf.constant(0.0), weights, zeros, zeros, list(map(tf.constant, bare.tables))]
    images, labels = tf.constant(x), tf.constant(y)

    @tf.function(jit_compile=xla)
    def run(order, seed, step, weights, means, squares, tables):
        def body(i, step, weights, means, squares, tables, total):
            batch = tf.cast(tf.gather(images, order[i]), tf.float32) / 255
            noise = tf.random.stateless_normal(
                bare.noise, tf.stack([seed, tf.cast(step, tf.int32)])
            )
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss, tables = bare.loss(weights, tables, batch, tf.gather(labels, order[i]), noise)
            gradients = list(map(tf.convert_to_tensor, tape.gradient(loss, weights)))
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
            return i + 1, step, weights, means, squares, tables, total + loss

        start = (tf.constant(0), step, weights, means, squares, tables, tf.constant(0.0))
        return tf.while_loop(lambda i, *_: i < steps, body, start)[1:]

    def epoch():
        order = random.permutation(len(x))[: steps * BATCH].reshape(steps, BATCH)
        *state[:], total = run(tf.constant(order), tf.constant(3), *state)
        return float(total) / steps

    return epoch


# Parts.


def widths(*sizes):
    return [(pair, pair[1]) for pair in itertools.pairwise(sizes)]


def head(it, hidden):
    return hidden @ next(it) + next(it)


def mlp(it, hidden, count):
    for _ in range(count):
        hidden = relu(head(it, hidden))
    return hidden


def normal(it, hidden, count):
    """`(mean, log variance)` from dense layers."""
    return tf.split(head(it, mlp(it, hidden, count)), 2, axis=-1)


def drawn(q, noise):
    return q[0] + tf.exp(0.5 * q[1]) * noise


def log_normal(z, mean, log_var):
    squares = (z - mean) ** 2 * tf.exp(-log_var) + log_var + math.log(2 * math.pi)
    return -0.5 * tf.reduce_sum(squares, -1)


def cross_entropy(x, logits):
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits), -1)


def kl(q, p=(0.0, 0.0)):
    ratio = q[1] - p[1]
    return 0.5 * tf.reduce_sum(tf.exp(ratio) + (q[0] - p[0]) ** 2 * tf.exp(-p[1]) - 1 - ratio, -1)


def conv(it, hidden, strides=1):
    return tf.nn.conv2d(hidden, next(it), strides, "SAME") + next(it)


def doubled(it, hidden, channels):
    batch, height, width, _ = hidden.shape
    shape = (batch, 2 * height, 2 * width, channels)
    return relu(tf.nn.conv2d_transpose(hidden, next(it), shape, 2) + next(it))


def residual(it, hidden):
    return hidden + conv(it, relu(conv(it, hidden)))


def decoded(it, z):
    return head(it, mlp(it, z, 3))


# Models.

PLAIN = [*widths(PIXELS, 512, 384, 256, LATENT), *widths(LATENT, 256, 384, 512, PIXELS)]
DENSE = [*widths(PIXELS, 512, 384, 256, 2 * LATENT), *widths(LATENT, 256, 384, 512, PIXELS)]
TOLD = [
    *widths(PIXELS + CLASSES, 512, 384, 256, 2 * LATENT),
    *widths(LATENT + CLASSES, 256, 384, 512, PIXELS),
]
CONV = [
    *[((3, 3, 1, 32), 32), ((3, 3, 32, 64), 64), ((7 * 7 * 64, 2 * LATENT), 2 * LATENT)],
    *[((LATENT, 7 * 7 * 64), 7 * 7 * 64), ((3, 3, 64, 64), 64), ((3, 3, 32, 64), 32)],
    ((3, 3, 32, 1), 1),
]
LADDER = [
    *[*widths(PIXELS, 256, 128, 32), *widths(128, 256, 128, 16)],
    *[*widths(8, 128, 256, 32), *widths(16, 128, 256, PIXELS)],
]
BLOCKS = 2 * [((3, 3, 64, 64), 64), ((1, 1, 64, 64), 64)]
MAP_ENCODER = [((3, 3, 1, 32), 32), ((3, 3, 32, 64), 64), *BLOCKS, ((1, 1, 64, DIM), DIM)]
MAP_DECODER = [((3, 3, DIM, 64), 64), *BLOCKS, *CONV[4:]]


def vae(weights, tables, x, y, noise):
    it = iter(weights)
    q = normal(it, x, 3)
    logits = head(it, mlp(it, drawn(q, noise), 3))
    return tf.reduce_mean(cross_entropy(x, logits) + kl(q)), tables


def autoencoder(weights, tables, x, y, noise):
    it = iter(weights)
    return tf.reduce_mean(cross_entropy(x, decoded(it, head(it, mlp(it, x, 3))))), tables


def denoising(weights, tables, x, y, noise):
    it, seen = iter(weights), tf.where(noise < -0.5244, 0.0, x)  # 30 % of the pixels
    return tf.reduce_mean(cross_entropy(x, decoded(it, head(it, mlp(it, seen, 3))))), tables


def sparse(weights, tables, x, y, noise):
    it = iter(weights)
    code = tf.sigmoid(head(it, mlp(it, x, 3)))
    active = tf.clip_by_value(tf.reduce_mean(code, 0), 1e-6, 1 - 1e-6)
    penalty = 0.05 * tf.math.log(0.05 / active) + 0.95 * tf.math.log(0.95 / (1 - active))
    loss = tf.reduce_mean(cross_entropy(x, decoded(it, code)))
    return loss + 0.1 * tf.reduce_sum(penalty), tables


def contractive(weights, tables, x, y, noise):
    it, many = iter(weights), tf.tile(x, (LATENT, 1))
    code = tf.sigmoid(head(it, mlp(it, x, 3)))
    with tf.GradientTape() as tape:
        tape.watch(many)
        again = iter(weights)
        rows = tf.reshape(tf.sigmoid(head(again, mlp(again, many, 3))), (LATENT, BATCH, LATENT))
        along = tf.reduce_sum(rows * tf.eye(LATENT)[:, None])
    slopes = tf.reduce_sum(tape.gradient(along, many) ** 2) / BATCH
    return tf.reduce_mean(cross_entropy(x, decoded(it, code))) + 0.1 * slopes, tables


def conditional(weights, tables, x, y, noise):
    it, rows = iter(weights), tf.one_hot(y, CLASSES)
    q = normal(it, tf.concat([x, rows], 1), 3)
    logits = head(it, mlp(it, tf.concat([drawn(q, noise), rows], 1), 3))
    return tf.reduce_mean(cross_entropy(x, logits) + kl(q)), tables


def iwae(weights, tables, x, y, noise):
    it = iter(weights)
    q = normal(it, x, 3)
    z = drawn(q, noise)
    logits = head(it, mlp(it, tf.reshape(z, (-1, LATENT)), 3))
    log_x = -tf.reshape(cross_entropy(tf.tile(x, (SAMPLES, 1)), logits), (SAMPLES, BATCH))
    log_w = log_x + log_normal(z, 0.0, 0.0) - log_normal(z, *q)
    return -tf.reduce_mean(tf.reduce_logsumexp(log_w, 0)), tables


def ladder(weights, tables, x, y, noise):
    it = iter(weights)
    below = mlp(it, x, 2)
    mean, log_var = tf.split(head(it, below), 2, axis=-1)
    top = normal(it, below, 2)
    p = normal(it, drawn(top, noise[:, :8]), 2)
    total = tf.exp(-log_var) + tf.exp(-p[1])
    q = (mean * tf.exp(-log_var) + p[0] * tf.exp(-p[1])) / total, -tf.math.log(total)
    logits = head(it, mlp(it, drawn(q, noise[:, 8:]), 2))
    return tf.reduce_mean(cross_entropy(x, logits) + kl(top) + kl(q, p)), tables


def vae_conv(weights, tables, x, y, noise):
    it = iter(weights)
    hidden = relu(conv(it, tf.reshape(x, (BATCH, 28, 28, 1)), 2))
    hidden = relu(conv(it, hidden, 2))
    q = tf.split(head(it, tf.reshape(hidden, (BATCH, -1))), 2, axis=-1)
    hidden = tf.reshape(relu(head(it, drawn(q, noise))), (BATCH, 7, 7, 64))
    logits = conv(it, doubled(it, doubled(it, hidden, 64), 32))
    return tf.reduce_mean(cross_entropy(x, tf.reshape(logits, x.shape)) + kl(q)), tables


def map_of_vectors(it, x):
    hidden = relu(conv(it, relu(conv(it, tf.reshape(x, (BATCH, 28, 28, 1)), 2)), 2))
    return conv(it, residual(it, residual(it, hidden)))


def nearest(z, e):
    return tf.argmin(tf.reduce_sum(e**2, -1) - 2 * tf.matmul(z, e, transpose_b=True), -1)


def vqvae(weights, tables, x, y, noise):
    it, (counts, sums) = iter(weights), tables
    z = map_of_vectors(it, x)
    flat, e = tf.reshape(z, (-1, DIM)), sums / counts[:, None]
    codes = nearest(flat, e)
    z_q = tf.reshape(tf.gather(e, codes), z.shape)
    commitment = 0.25 * tf.reduce_sum((z - z_q) ** 2, (1, 2, 3))
    hidden = residual(it, residual(it, relu(conv(it, z + tf.stop_gradient(z_q - z)))))
    logits = conv(it, doubled(it, doubled(it, hidden, 64), 32))
    flat, used = tf.stop_gradient(flat), tf.one_hot(codes, CODES)
    share = tf.reduce_mean(counts)
    dead, picked = counts < 0.05 * share, tf.gather(flat, tf.cast(tf.abs(noise) * 999, tf.int32))
    counts, sums = tf.where(dead, share, counts), tf.where(dead[:, None], share * picked, sums)
    counts = 0.99 * counts + 0.01 * tf.reduce_sum(used, 0)
    sums = 0.99 * sums + 0.01 * tf.matmul(used, flat, transpose_a=True)
    loss = tf.reduce_mean(cross_entropy(x, tf.reshape(logits, x.shape)) + commitment)
    return loss, [counts, sums]


def code_prior(weights, tables, x, y, noise):
    """The encoder and the codebook are `tables`."""
    it, (codebook, *encoder) = iter(weights), tables
    codes = nearest(tf.reshape(map_of_vectors(iter(encoder), x), (-1, DIM)), codebook)
    codes = tf.reshape(codes, (BATCH, 7, 7))
    above, left = tf.gather(next(it), codes), tf.gather(next(it), codes)
    for index in range(6):
        seen = (np.arange(3) < 1 + (index > 0)).astype("f")
        above = tf.nn.conv2d(above, next(it) * seen[:, None, None, None], 1, "SAME") + next(it)
        row = tf.nn.conv2d(left, next(it) * seen[:, None, None], 1, "SAME") + next(it)
        out = conv(it, gated(row + conv(it, above)))
        above, left = gated(above), left + out if index else out
    logits = conv(it, relu(conv(it, relu(left))))
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=logits)
    return tf.reduce_mean(tf.reduce_sum(entropy, (1, 2))), tables


def gated(both):
    a, b = tf.split(both, 2, axis=-1)
    return tf.tanh(a) * tf.sigmoid(b)


GATED = [
    ((3, 3, 64, 128), 128),
    ((1, 3, 64, 128), 128),
    ((1, 1, 128, 128), 128),
    ((1, 1, 64, 64), 64),
]
PRIOR = [*2 * [((CODES, 64), 0)], *6 * GATED, ((1, 1, 64, 64), 64), ((1, 1, 64, CODES), CODES)]
CODEBOOK = np.random.default_rng(0).uniform(-1, 1, (CODES, DIM)).astype("f")
MODELS = {
    "vae": Bare(DENSE, (BATCH, LATENT), vae),
    "conditionalvae": Bare(TOLD, (BATCH, LATENT), conditional),
    "iwae": Bare(DENSE, (SAMPLES, BATCH, LATENT), iwae),
    "hierarchicalvae": Bare(LADDER, (BATCH, 24), ladder),
    "autoencoder": Bare(PLAIN, (1,), autoencoder),
    "denoisingautoencoder": Bare(PLAIN, (BATCH, PIXELS), denoising),
    "sparseautoencoder": Bare(PLAIN, (1,), sparse),
    "contractiveautoencoder": Bare(PLAIN, (1,), contractive),
    "vae-conv": Bare(CONV, (BATCH, LATENT), vae_conv, conv=True),
    "vqvae": Bare(
        [*MAP_ENCODER, *MAP_DECODER], (CODES,), vqvae, (np.ones(CODES, "f"), CODEBOOK), conv=True
    ),
    "codeprior": Bare(
        PRIOR, (1,), code_prior, (CODEBOOK, *map(np.array, initial_weights(MAP_ENCODER))), conv=True
    ),
}
