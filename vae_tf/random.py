"""Counter-based noise: a number depends on its key and its place, and on nothing drawn before.

The noise of training, whose key is (seed, number of the step, number of the draw), costs a step next
to nothing. In an exported model, where a SeedGenerator would be a mutable variable that every fresh
server replays, each row of a batch has its own key, so that an image depends on its seed alone.

Keras is imported by the functions that draw: the client of a server needs `row_seeds` alone.
"""

import contextlib
import math
import secrets

import numpy as np

from vae_tf.errors import check_positive_int

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_LOW = 0xFFFFFFFF


def row_seeds(seed, num):
    """The `num` int64 seeds that stand for one `seed`; the first k do not depend on `num`.

    The first is `seed` itself, so that one image of seed 7 is the same everywhere: here, from the
    signature `generate`, on the page. The others follow from it by `numpy.random.SeedSequence`,
    and are far from those of any other seed. (A seed of 2⁶³ or more is no int64: there the first
    follows from it, too.)

    Args:
        seed: a non-negative integer; None draws one.
        num: how many rows.

    Raises:
        TypeError, ValueError: `seed` or `num` is something else.
    """
    seed = secrets.randbits(63) if seed is None else check_positive_int("seed", seed, minimum=0)
    num = check_positive_int("num", num)
    seeds = np.random.SeedSequence(seed).generate_state(num, np.uint64).view(np.int64)
    if seed < 2**63:
        seeds[0] = seed
    return seeds


def child_seeds(seed, num):
    """Independent seeds, each below 2³², for the parts of a model.

    Args:
        seed: a non-negative integer; None takes one that `keras.utils.set_random_seed` fixes.
        num: how many parts.
    """
    if seed is None:
        import random  # Python's own, which `keras.utils.set_random_seed` seeds

        seed = random.getrandbits(63)
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(num)]


@contextlib.contextmanager
def default_seeds(seed):
    """Within the block `seed` fixes what Keras's layers draw that are given no seed."""
    import random  # Python's own, from which Keras takes such seeds

    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def threefry(counter, key):
    """Threefry2x32 of 20 rounds: two random 32-bit words for each counter and key.

    Args:
        counter, key: a pair of uint32 tensors each, which broadcast against one another.

    Returns:
        A pair of uint32 tensors.

    Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", section 3.
    """
    from keras import ops

    def word(value):
        return ops.convert_to_tensor(value, "uint32")

    def rotated(value, by):
        left, right = ops.left_shift(value, word(by)), ops.right_shift(value, word(32 - by))
        return ops.bitwise_or(left, right)

    keys = (*key, ops.bitwise_xor(ops.bitwise_xor(*key), word(_PARITY)))
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for turn in range(20):
        x0 = x0 + x1
        x1 = ops.bitwise_xor(rotated(x1, _ROTATIONS[turn % 8]), x0)
        if turn % 4 == 3:
            added = turn // 4 + 1
            x0 = x0 + keys[added % 3]
            x1 = x1 + keys[(added + 1) % 3] + word(added)
    return x0, x1


def key_of(seeds):
    """The two words of int64 seeds of any value: a key of `threefry`."""
    from keras import ops

    seeds = ops.cast(seeds, "int64")
    low, high = ops.bitwise_and(seeds, _LOW), ops.bitwise_and(ops.right_shift(seeds, 32), _LOW)
    return ops.cast(low, "uint32"), ops.cast(high, "uint32")


def fold(key, number, second=0):
    """A new key for each pair of numbers: `key` and the numbers (below 2³²) fix it."""
    from keras import ops

    return threefry((ops.cast(number, "uint32"), ops.cast(second, "uint32")), key)


def uniform(key, rows, dim, dtype="float32"):
    """Numbers between 0 and 1, never 0, of shape `(rows, dim)`; arguments as for `normal`."""
    from keras import ops

    return ops.concatenate(_uniform_pairs(key, rows, dim, dtype), axis=-1)[..., :dim]


def normal(key, rows, dim, dtype="float32"):
    """Standard normal numbers of shape `(rows, dim)` (Box & Muller 1958).

    Args:
        key: two uint32 tensors: scalars, or of a shape that broadcasts against `(rows, ⌈dim/2⌉)`:
            with `(batch, 1)` and one row, row i depends on key i alone; with `(samples, 1, 1)` the
            result has the shape `(samples, rows, dim)`.
        rows: how many; or a tensor of their numbers, on which they depend.
        dim: how many columns.
        dtype: in which the angle and the radius are computed.
    """
    from keras import ops

    u0, u1 = _uniform_pairs(key, rows, dim, dtype)
    radius, angle = ops.sqrt(-2.0 * ops.log(u0)), 2.0 * math.pi * u1
    pair = (radius * ops.cos(angle), radius * ops.sin(angle))
    return ops.concatenate(pair, axis=-1)[..., :dim]


def seeded_normal(seeds, dim):
    """Standard normal rows, each fixed by its own seed, in any batch and any process.

    Args:
        seeds: int64, of shape `(batch,)`. Any value.
        dim: the number of columns.

    Returns:
        float32, of shape `(batch, dim)`. Row i depends on `seeds[i]` alone.
    """
    from keras import ops

    key = key_of(ops.expand_dims(ops.convert_to_tensor(seeds, "int64"), -1))
    # In double precision, since the last bit of TensorFlow's sine depends on the place in the batch.
    return ops.cast(normal(key, 1, dim, "float64"), "float32")


def _uniform_pairs(key, rows, dim, dtype):
    """Two tensors of shape `(rows, ⌈dim/2⌉)`, with values in (0, 1]."""
    from keras import ops

    numbers = ops.arange(rows) if len(ops.shape(rows)) == 0 else rows
    row = ops.cast(ops.expand_dims(numbers, -1), "uint32")
    column = ops.cast(ops.expand_dims(ops.arange((dim + 1) // 2), 0), "uint32")
    words = threefry((row + ops.zeros_like(column), column + ops.zeros_like(row)), key)
    return [(ops.cast(word, dtype) + 0.5) * 2.0**-32 for word in words]
