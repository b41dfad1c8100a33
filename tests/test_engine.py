"""The engine: the order of the images, steps in one compiled loop, their noise and their record."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from keras import ops
from training_helpers import Recorder, small_vae

import vae_tf
from vae_tf import VAE, random
from vae_tf.engine import loop, step
from vae_tf.engine.order import MOST_STEPS, Order, choose_steps

pytestmark = pytest.mark.xla

# The order of the images.


@pytest.mark.parametrize("num", [100, 105])
def test_every_image_once_an_epoch_and_each_epoch_in_another_order(num):
    def epochs(**kwargs):
        order, found = Order(num, 10, seed=0, **kwargs), []
        for _ in range(2):
            executions = [order.next(4) for _ in range(3)]
            found.append([int(row) for part in executions for rows in part for row in rows.ravel()])
        return found

    one, other = epochs()
    assert sorted(one) == sorted(other) == list(range(num))
    assert one != other
    assert epochs() == [one, other]
    assert epochs(shuffle=False) == [list(range(num))] * 2
    seeded = Order(num, 10, seed=1).next(1)[0].ravel().tolist()
    assert seeded != one[:10]


def test_an_execution_holds_its_batches_by_their_size_and_ends_with_the_epoch():
    order = Order(25, 10, seed=0)
    assert [[rows.shape for rows in order.next(2)] for _ in range(4)] == [
        [(2, 10)], [(1, 5)], [(2, 10)], [(1, 5)],
    ]  # fmt: skip
    assert [rows.shape for rows in Order(25, 10, seed=0).next(100)] == [(2, 10), (1, 5)]
    # An epoch of more steps than a time round the images goes on with the next one.
    longer = Order(25, 10, seed=0, steps_per_epoch=4)
    assert [rows.shape for rows in longer.next(100)] == [(2, 10), (1, 5), (1, 10)]


def test_the_order_can_begin_at_any_step():
    whole, late = Order(25, 10, seed=3), Order(25, 10, seed=3, first_step=7)
    rows = [batch for _ in range(6) for part in whole.next(1) for batch in part]
    rows += [batch for _ in range(6) for part in whole.next(1) for batch in part]
    for expected in rows[7:]:
        np.testing.assert_array_equal(late.next(1)[0][0], expected)


@pytest.mark.parametrize(
    ("steps", "exact", "chosen"),
    [
        (3, False, 3), (100, False, 100), (600, False, 100), (469, False, 67), (97, False, 97),
        (211, False, 100),  # a prime: the epoch's last execution is shorter
        (211, True, 1), (None, False, 100), (None, True, 100),
    ],
)  # fmt: skip
def test_how_many_steps_an_execution_has(steps, exact, chosen):
    assert choose_steps(steps, exact) == chosen <= MOST_STEPS


def test_the_order_follows_the_models_seed_and_no_other():
    """Two fits of models of one seed, between which another drew numbers from everywhere."""
    found = []
    for model_seed, others in ((3, 1), (3, 2), (4, 2)):
        keras.utils.set_random_seed(others)
        model = small_vae(seed=model_seed, run_eagerly=True)
        model.fit(blobs(), batch_size=16, steps_per_epoch=3, verbose=0)
        found.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_set_random_seed_fixes_a_model_without_a_seed():
    found = []
    for seed in (9, 9, 10):
        keras.utils.set_random_seed(seed)
        model = small_vae(seed=None, run_eagerly=True)
        model.fit(blobs(), batch_size=16, epochs=2, verbose=0)
        found.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


# The compiled loop does what Keras's own does.


@pytest.mark.slow
def test_steps_per_execution_changes_nothing_but_speed():
    """25 batches and a smaller one, in executions that divide them and that do not."""
    losses = []
    for steps_per_execution in (1, 7, 100, "auto"):
        model = small_vae(steps_per_execution=steps_per_execution)
        losses.append(model.fit(blobs(255), batch_size=10, epochs=2, verbose=0).history["loss"])
        assert model.optimizer.iterations == 52
    np.testing.assert_allclose(losses, [losses[0]] * 4, rtol=1e-6)


def test_a_data_set_trains_as_the_array_in_its_order_does():
    x = blobs(75)
    one, other = (small_vae(jit_compile=False) for _ in range(2))
    one.fit(x, batch_size=10, epochs=2, shuffle=False, verbose=0)
    other.fit(tf.data.Dataset.from_tensor_slices(x).batch(10), epochs=2, verbose=0)
    for a, b in zip(one.trainable_weights, other.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # two programs, rounded each in its way


def test_batches_of_changing_size_and_unknown_number():
    x = blobs(60)
    sizes = [10, 10, 7, 7, 7, 10, 9]

    def generate():
        start = 0
        for size in sizes:
            yield x[start : start + size]
            start += size

    spec = tf.TensorSpec((None, 8, 8), tf.uint8)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
    model, history, recorder = small_vae(jit_compile=False), vae_tf.StepHistory(), Recorder()
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras, on any set of unknown size
        model.fit(dataset, epochs=1, verbose=0, callbacks=[history, recorder])
    assert model.optimizer.iterations == len(sizes)
    assert len(history.rows) == len(sizes)
    np.testing.assert_array_equal(recorder.columns()["images"], sizes)


def test_steps_per_epoch_is_exact():
    model = small_vae(jit_compile=False)
    dataset = tf.data.Dataset.from_tensor_slices(blobs(50)).batch(10).repeat()
    model.fit(dataset, steps_per_epoch=7, epochs=3, verbose=0)
    assert model.optimizer.iterations == 21
    model.fit(blobs(50), batch_size=10, steps_per_epoch=2, epochs=2, verbose=0)
    assert model.optimizer.iterations == 25


def test_every_way_of_execution_gives_the_same_steps():
    """Each way of execution gives the same steps and the same record of them."""
    records = []
    for kwargs in ({}, {"jit_compile": False}, {"run_eagerly": True, "steps_per_execution": 3}):
        model, history = small_vae(**kwargs), vae_tf.StepHistory()
        x = blobs(70)
        model.fit(x, batch_size=10, epochs=2, shuffle=False, verbose=0, callbacks=[history])
        records.append(history.columns())
    for record in records[1:]:
        for name in ("step", "loss", "kl_loss", "gradient_norm"):
            np.testing.assert_allclose(record[name], records[0][name], rtol=1e-4)


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.slow
def test_steps_whose_norm_is_not_taken_are_the_same_steps(monkeypatch, as_dataset):
    """After the first ones, each execution's last step of either batch size is measured."""
    x, found = blobs(75), []
    source = tf.data.Dataset.from_tensor_slices(x).batch(10) if as_dataset else x
    sizes = {} if as_dataset else {"batch_size": 10}
    for first_steps in (10**9, 0):
        monkeypatch.setattr(loop, "FIRST_STEPS", first_steps)
        model = small_vae(steps_per_execution=4, jit_compile=not as_dataset)
        recorder = Recorder()
        model.fit(source, epochs=2, shuffle=False, verbose=0, callbacks=[recorder], **sizes)
        noise = model.sampling.seed_generator.state.numpy()
        found.append((noise, *model.get_weights(), recorder.columns()))
    (*weights, terms), (*others, some) = found
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    measured = np.array(2 * [0, 0, 0, 1, 0, 0, 1, 1], bool)
    assert np.isfinite(terms["gradient_norm"]).all()
    np.testing.assert_array_equal(np.isfinite(some["gradient_norm"]), measured)
    for name in terms:
        chosen = measured if name == "gradient_norm" else slice(None)
        np.testing.assert_allclose(terms[name][chosen], some[name][chosen], rtol=1e-4, atol=1e-6)


# What reaches callbacks.


def test_callbacks_are_given_every_step_of_an_execution():
    model, recorder = small_vae(steps_per_execution=4, jit_compile=False), Recorder()
    history = model.fit(blobs(75), batch_size=10, epochs=2, verbose=0, callbacks=[recorder]).history
    assert [(s.first, s.last, len(s)) for s in recorder.executions] == [
        (1, 4, 4), (5, 8, 4), (9, 12, 4), (13, 16, 4),
    ]  # fmt: skip
    for steps in recorder.executions:
        assert set(steps.numbers) == {"gradient_norm", "images", "beta"}
        assert set(steps.terms) == {
            "loss", "reconstruction_loss", "kl_loss", "kl_per_dimension", "z_mean", "z_mean_squared",
            "z_variance",
        }  # fmt: skip
        assert steps.terms["loss"].shape == (4,)
        assert steps.terms["z_mean"].shape == (4, 2)
    columns = recorder.columns()
    images = columns["images"].reshape(2, 8)
    np.testing.assert_array_equal(images, [[10] * 7 + [5]] * 2)
    for name in ("loss", "reconstruction_loss", "kl_loss"):
        means = np.average(columns[name].reshape(2, 8), axis=1, weights=images)
        np.testing.assert_allclose(history[name], means, rtol=1e-6)
    kl = columns["kl_per_dimension"].sum(axis=1)
    np.testing.assert_allclose(columns["kl_loss"], kl, rtol=1e-5)


class OwnStep(VAE):
    """A subclass whose train step logs a figure of its own."""

    def train_step(self, batch):
        logs = super().train_step(batch)
        return logs | {"sigma": ops.exp(ops.mean(self.encoder.weights[-1]))}


@pytest.mark.parametrize(
    "kwargs", [pytest.param({}, marks=pytest.mark.slow), {"run_eagerly": True}]
)
def test_what_an_overridden_train_step_logs_is_in_the_history(kwargs):
    model = small_vae(OwnStep, **kwargs)
    history = model.fit(blobs(50), batch_size=10, epochs=2, verbose=0).history
    expected = np.exp(np.mean(model.encoder.weights[-1]))
    assert history["sigma"][-1] == pytest.approx(expected, rel=1e-5)
    twin = small_vae(**kwargs).fit(blobs(50), batch_size=10, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["loss"], twin["loss"], rtol=1e-6)


# Noise.


class Draws(vae_tf.Model):
    """Its terms are the draws of a step: of three layers, one of which is drawn from three times."""

    latent_dim = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.likelihood = vae_tf.Gaussian()
        self.second, self.third = vae_tf.Noise(seed=12), vae_tf.Noise(seed=13)

    def terms(self, x, training=False):
        like = x[:, :3]
        return {
            "loss": 0 * x[:, 0] * self.likelihood.log_sigma,
            "one": self.noise.normal(like),
            "two": self.noise.uniform(like),
            "three": ops.transpose(self.noise.normal(like, num_samples=2), (1, 0, 2)),
            "other": self.second.normal(like),
            "many": ops.transpose(self.third.normal(like, num_samples=4), (1, 0, 2)),
        }


def keyed(seed, made, draw):
    """The key of a draw: the layer's seed and the number of the step, and the draw's where it is not 0."""
    key = np.uint32(seed), np.uint32(made)
    return random.fold(key, draw) if draw else key


def sampled(key, num_samples):
    """Rows of as many samples, the keys of which follow one another."""
    key = random.fold(key, 0, 1)
    return [random.normal((key[0], key[1] + np.uint32(k)), 1, 3)[0] for k in range(num_samples)]


@pytest.mark.parametrize("ahead", [2**21, 0])
@pytest.mark.parametrize("kwargs", [{}, {"jit_compile": False}, {"run_eagerly": True}])
def test_each_draw_of_a_step_has_a_key_of_its_own(kwargs, ahead, monkeypatch):
    """Drawn ahead for all steps of an execution or not, they are what `random` gives for the keys."""
    monkeypatch.setattr(step, "AHEAD", ahead)
    model, recorder = Draws(seed=1), Recorder()
    model.compile(steps_per_execution=3, **kwargs)
    model.fit(np.zeros((5, 4), "f"), batch_size=1, verbose=0, callbacks=[recorder])  # means of one
    columns = recorder.columns()
    for made in range(5):
        draws = {
            "one": random.normal(keyed(model.noise.seed, made, 0), 1, 3)[0],
            "two": random.uniform(keyed(model.noise.seed, made, 1), 1, 3)[0],
            "three": sampled(keyed(model.noise.seed, made, 2), 2),
            "other": random.normal(keyed(12, made, 0), 1, 3)[0],
            "many": sampled(keyed(13, made, 0), 4),
        }
        for name, expected in draws.items():
            np.testing.assert_allclose(columns[name][made], expected, rtol=1e-5, atol=1e-6)
    names = ("one", "three", "other", "many")
    drawn = np.concatenate([columns[name].reshape(5, -1) for name in names], 1)
    assert len(np.unique(drawn)) == drawn.size  # no two are alike, in one step or in two


def test_draws_out_of_training_are_never_alike_either():
    noise = vae_tf.Noise(seed=0)
    draws = [noise.normal((2, 3)), *noise.normal((2, 3), 4), *noise.normal((2, 3), 4)]
    assert len(np.unique(draws)) == 9 * 6


def test_seeds_that_differ_by_a_word_give_other_draws():
    draws = [vae_tf.Noise(seed=seed).normal((2, 3)) for seed in (1, 1 + 2**32, 1 + 2**64)]
    assert len(np.unique(draws)) == 18
    models = [small_vae(seed=seed, jit_compile=False) for seed in (1, 1 + 2**32)]
    losses = [model.fit(blobs(), verbose=0).history["loss"] for model in models]
    assert losses[0] != losses[1]


def test_rows_of_a_batch_have_draws_of_their_own():
    """The term's mean over the batch is that of as many rows of the key's numbers."""
    model, recorder = Draws(seed=1), Recorder()
    model.compile(jit_compile=False)
    model.fit(np.zeros((7, 4), "f"), batch_size=7, verbose=0, callbacks=[recorder])
    expected = np.mean(random.normal(keyed(model.noise.seed, 0, 0), 7, 3), axis=0)
    np.testing.assert_allclose(recorder.columns()["one"][0], expected, atol=1e-6)


class TwoDraws(VAE):
    """The mean of two draws' losses, as a subclass may have it."""

    def terms(self, x, training=False):
        one, other = super().terms(x, training=training), super().terms(x, training=training)
        return {name: (one[name] + other[name]) / 2 for name in one}


@pytest.mark.slow
def test_a_subclass_draws_as_often_as_it_likes():
    losses = [
        small_vae(TwoDraws, run_eagerly=eager).fit(blobs(), verbose=0).history["loss"]
        for eager in (False, True)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0] != pytest.approx(small_vae().fit(blobs(), verbose=0).history["loss"])


def test_evaluation_gives_each_draw_a_key_and_each_image_its_number():
    """In batches of any size; and what one evaluates does not disturb training's noise."""
    model = Draws(seed=1)
    model.compile(jit_compile=False)
    model.build((None, 4))
    before = model.noise.seed_generator.state.numpy()
    seen = []
    original = Draws.terms

    def terms(self, x, training=False):
        found = original(self, x, training)
        seen.append({name: np.array(value) for name, value in found.items()})
        return found

    model.run_eagerly = True
    model.engine.call_terms._terms = terms.__get__(model)
    parts = {}
    for batch_size in (5, 2):
        seen.clear()
        model.evaluate(np.zeros((5, 4), "f"), batch_size=batch_size, verbose=0)
        rows = seen[-3:] if batch_size == 2 else seen[-1:]
        parts[batch_size] = {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
    for name, values in parts[5].items():
        np.testing.assert_allclose(values, parts[2][name], rtol=1e-6, atol=1e-7)
    drawn = [parts[5][name].reshape(5, -1) for name in ("one", "three", "other", "many")]
    assert len(np.unique(np.concatenate(drawn, 1))) == 5 * 24
    np.testing.assert_array_equal(model.noise.seed_generator.state.numpy(), before)
