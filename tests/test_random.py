"""Counter-based noise: the published answers, the laws of the draws, and what they depend on."""

import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from vae_tf.random import key_of, normal, row_seeds, seeded_normal, threefry, uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers of threefry2x32-20 that its authors distribute with Random123
        ([0, 0], [0, 0], [0x6B200159, 0x99BA4EFE]),
        ([0xFFFFFFFF] * 2, [0xFFFFFFFF] * 2, [0x1CB996FC, 0xBB002BE7]),
        ([0x243F6A88, 0x85A308D3], [0x13198A2E, 0x03707344], [0xC4923A9C, 0x483DF7A0]),
    ],
)
def test_threefry_gives_the_published_answers(counter, key, expected):
    words = threefry(*([tf.constant(word, tf.uint32) for word in pair] for pair in (counter, key)))
    assert [int(word) for word in words] == expected


@pytest.mark.parametrize(("draw", "law"), [(normal, "norm"), (uniform, "uniform")])
def test_noise_of_one_key_has_its_law_and_its_numbers_are_independent(draw, law):
    draws = draw(key_of(12345), 20000, 5).numpy()
    assert draws.shape == (20000, 5)
    for column in draws.T:
        assert scipy.stats.kstest(column, law).pvalue > 1e-4
    again = draw(key_of(12346), 20000, 5).numpy()
    table = np.corrcoef(np.concatenate([draws[1:], draws[:-1], again[1:]], 1).T)
    assert np.abs(table - np.eye(15)).max() < 4.5 / math.sqrt(20000)
    np.testing.assert_allclose(draw(key_of(12345), 7, 5), draws[:7], rtol=1e-6)


def test_seeded_normal_is_standard_normal_and_its_rows_are_independent():
    z = seeded_normal(row_seeds(3, 20000), 5).numpy()
    assert z.shape == (20000, 5)
    for column in z.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(z.T) - np.eye(5)).max() < 4 / math.sqrt(20000)
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 4 / math.sqrt(20000)


@pytest.mark.parametrize("dim", [1, 2, 4, 10])
def test_a_row_depends_on_its_own_seed_alone(dim):
    seeds = np.array([5, -1, 2**62, 0, 5], np.int64)
    z = seeded_normal(seeds, dim).numpy()
    np.testing.assert_array_equal(z[0], z[4])
    assert len(np.unique(z[:4], axis=0)) == 4
    for index, seed in enumerate(seeds):
        np.testing.assert_array_equal(seeded_normal([seed], dim).numpy()[0], z[index])


def test_row_seeds_are_a_prefix_and_distinct():
    np.testing.assert_array_equal(row_seeds(7, 10), row_seeds(7, 1000)[:10])
    assert len(np.unique([row_seeds(seed, 1000) for seed in range(20)])) == 20000


def test_the_first_row_of_a_seed_is_its_own():
    for seed in (0, 7, 2**63 - 1, np.int64(7)):
        assert row_seeds(seed, 3)[0] == seed
    for seed in (2**63, 2**64 + 7):  # no int64, but seeds all the same
        assert row_seeds(seed, 3)[0] not in (seed % 2**64, 7)
    assert row_seeds(None, 3)[0] >= 0
    assert not np.array_equal(row_seeds(None, 3), row_seeds(None, 3))


@pytest.mark.parametrize(("seed", "num"), [(-1, 3), (0.5, 3), ("a", 3), (0, 0), (0, 1.5)])
def test_seeds_that_are_none_are_named(seed, num):
    with pytest.raises((ValueError, TypeError), match="'seed'" if seed else "'num'"):
        row_seeds(seed, num)
