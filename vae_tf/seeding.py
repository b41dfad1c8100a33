"""Noise that depends on a row's own seed and on nothing else.

A SeedGenerator inside an exported model is a mutable variable: every fresh server would replay the
same sequence, and an image would depend on what else is in its batch. Here each row of a batch
carries a seed, which is the key of a counter-based generator.
"""

import math

import numpy as np
import tensorflow as tf

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def row_seeds(seed, num):
    """The `num` int64 seeds that stand for one `seed`; the first k do not depend on `num`.

    Args:
        seed: a non-negative integer.
        num: how many rows.
    """
    return np.random.SeedSequence(seed).generate_state(num, np.uint64).view(np.int64)


def philox(counter, key, rounds=10):
    """Philox4x32: four random 32-bit words for each counter and key.

    Args:
        counter: a list of four uint64 tensors that hold 32-bit words.
        key: a list of two of them, which broadcast against the counter's.

    Returns:
        A list of four uint64 tensors with values below 2³².

    Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", section 4.
    """
    shift, low = tf.constant(32, tf.uint64), tf.constant(_LOW, tf.uint64)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0 = c0 * tf.constant(_MULTIPLIERS[0], tf.uint64)
        product1 = c2 * tf.constant(_MULTIPLIERS[1], tf.uint64)
        c0, c1, c2, c3 = (
            tf.bitwise.right_shift(product1, shift) ^ c1 ^ k0,
            product1 & low,
            tf.bitwise.right_shift(product0, shift) ^ c3 ^ k1,
            product0 & low,
        )
        k0 = (k0 + tf.constant(_KEY_INCREMENTS[0], tf.uint64)) & low
        k1 = (k1 + tf.constant(_KEY_INCREMENTS[1], tf.uint64)) & low
    return [c0, c1, c2, c3]


def seeded_normal(seeds, dim):
    """Standard normal rows, each fixed by its own seed (Philox, then Box & Muller 1958).

    Args:
        seeds: int64, of shape `(batch,)`. Any value.
        dim: the number of columns.

    Returns:
        float32, of shape `(batch, dim)`. Row i depends on `seeds[i]` alone.
    """
    bits = tf.bitcast(tf.convert_to_tensor(seeds, tf.int64), tf.uint64)[:, tf.newaxis]
    key = [
        bits & tf.constant(_LOW, tf.uint64),
        tf.bitwise.right_shift(bits, 32 * tf.ones_like(bits)),
    ]
    blocks = tf.range(math.ceil(dim / 4), dtype=tf.int64)[tf.newaxis]
    block = tf.cast(blocks, tf.uint64) + tf.zeros_like(bits)
    zero = tf.zeros_like(block)
    words = [tf.cast(word, tf.float64) for word in philox([block, zero, zero, zero], key)]
    u0, u1, u2, u3 = [(word + 0.5) / 2.0**32 for word in words]  # in (0, 1), never at its ends
    radius = tf.sqrt(-2.0 * tf.math.log(tf.stack([u0, u2])))
    angle = 2.0 * math.pi * tf.stack([u1, u3])
    normal = tf.stack([radius * tf.cos(angle), radius * tf.sin(angle)])  # (2, 2, batch, blocks)
    rows = tf.reshape(tf.transpose(normal, [2, 3, 1, 0]), [-1, 4 * math.ceil(dim / 4)])
    return tf.cast(rows[:, :dim], tf.float32)
