"""One seed fixes a run; seeds that differ in their high word alone are different seeds."""

import keras
import numpy as np
import pytest
from helpers import blobs
from training_helpers import flat, small_vae

import vae_tf
from vae_tf.random import child_seeds, row_seeds

pytestmark = pytest.mark.xla

APART = (5, 5 + 2**32, 5 + 2**62)


def different(values):
    return len({np.asarray(value).tobytes() for value in values}) == len(values)


def test_child_seeds_are_independent_and_each_fits_a_word():
    for seed in APART:
        seeds = child_seeds(seed, 100)
        assert len(set(seeds)) == 100
        assert all(0 <= child < 2**32 for child in seeds)
        assert child_seeds(seed, 40) == seeds[:40]
    assert different([child_seeds(seed, 4) for seed in APART])
    found = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        found.append(child_seeds(None, 4))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["vae", "sampling", "binarize", "noise"])
def test_every_bit_of_a_seed_counts_in_training(name):
    """Of the model, or of one of its layers: each gives another trajectory, and the same one again."""

    def trained(seed):
        model = small_vae(seed=seed if name == "vae" else 0, binarize=True, run_eagerly=True)
        if name == "sampling":
            model.sampling = vae_tf.Sampling(seed=seed)
        elif name == "binarize":
            model.binarize = vae_tf.Binarize(seed=seed)
        elif name == "noise":
            model.observed = lambda x: x + 0.01 * vae_tf.Noise(seed=seed).uniform(x)
        model.fit(blobs(20), batch_size=10, verbose=0)
        return flat(model.get_weights())

    found = [trained(seed) for seed in APART]
    assert different(found)
    np.testing.assert_array_equal(trained(APART[1]), found[1])


def test_every_bit_of_a_seed_counts_in_draws():
    model = small_vae()
    model.build((None, 8, 8))
    assert different([model.generate(2, seed=seed) for seed in APART])
    assert different([row_seeds(seed, 3) for seed in APART])
    images = [model.log_weights(blobs(5) > 100, 2, seed=seed) for seed in APART]
    assert different(images)
    np.testing.assert_array_equal(
        model.generate(2, seed=APART[2]), model.generate(2, seed=APART[2])
    )


def test_the_seed_fixes_training_whose_length_is_given_in_steps():
    """In a process that drew other numbers in between, on arrays in an order of the model's own."""
    found = []
    for others in (1, 2):
        keras.utils.set_random_seed(others)
        model = small_vae(seed=3, run_eagerly=True)
        model.fit(blobs(20), batch_size=10, steps_per_epoch=3, epochs=2, verbose=0)
        found.append(flat(model.get_weights()))
    np.testing.assert_array_equal(*found)
