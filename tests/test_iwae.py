"""The importance weighted bound, and both gradients of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from keras import layers
from linear_models import POINTS, closed_form, linear_vae
from scipy import special, stats
from training_helpers import flat, small_vae

from vae_tf import IWAE, VAE, Images, KLWarmup, StepHistory, evaluation, plots
from vae_tf.cli import train
from vae_tf.export.signatures import BY_NAME
from vae_tf.layers import PerImage, drawing

X = blobs(60) > 100
DRAWS = 2000


def fitted(model_class=VAE, epochs=2, **kwargs):
    """The record of each step, and the weights, after some steps."""
    kwargs = {"jit_compile": False} | kwargs
    model, record = small_vae(model_class, **kwargs), StepHistory()
    hooks = [record, KLWarmup(8)]
    model.fit(X, batch_size=20, epochs=epochs, verbose=0, callbacks=hooks)
    return record.columns(), flat(model.trainable_weights)


def terms(model, x=X, training=False):
    with drawing(PerImage(3, np.arange(len(x)))):
        found = model.terms(tf.constant(x, "float32"), training=training)
    return {name: value.numpy() for name, value in found.items()}


def test_with_one_sample_it_is_the_vae():
    (columns, weights), (others, twin) = fitted(VAE), fitted(IWAE, num_samples=1)
    assert columns.keys() == others.keys()
    for name, column in columns.items():
        np.testing.assert_array_equal(column, others[name], err_msg=name)
    np.testing.assert_array_equal(weights, twin)


@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_bound_is_that_of_scipys_densities(k, doubly):
    model = small_vae(IWAE, num_samples=k, doubly_reparameterized=doubly)
    model.build((None, 8, 8))
    found = terms(model)
    mean, log_var = (np.float64(part) for part in model.encode(X))
    with drawing(PerImage(3, np.arange(len(X)))):
        one = model.sampling.normal((len(X), 2), None if k == 1 and not doubly else k)
        noise = one.numpy().reshape(k, len(X), 2)
    q = stats.norm(mean, np.exp(log_var / 2))
    z = mean + np.exp(log_var / 2) * noise
    means = special.expit(np.float64(model.decode(z.reshape(-1, 2)))).reshape(k, *X.shape)
    log_x = stats.bernoulli(means).logpmf(X).sum((2, 3))
    log_w = log_x + stats.norm.logpdf(z).sum(-1) - q.logpdf(z).sum(-1)
    if k > 1 or doubly:
        bound = special.logsumexp(log_w, axis=0, b=1 / k)
        np.testing.assert_allclose(-found["loss"], bound, rtol=1e-5)
    kl = (0.5 * (np.exp(log_var) + mean**2 - 1 - log_var)).sum(1)
    elbo = found["elbo_loss" if "elbo_loss" in found else "loss"]
    np.testing.assert_allclose(-elbo, log_x.mean(0) - kl, rtol=1e-5)


def test_the_bound_rises_with_k_from_the_elbo_towards_log_p():
    x, found = np.repeat(POINTS.astype("float32"), 500, axis=0), []
    for k in (1, 4, 16, 64):
        found.append(-terms(linear_vae(False, IWAE, num_samples=k), x)["loss"].mean())
    exact = closed_form(linear_vae(False), POINTS)
    assert found[0] == pytest.approx(exact.elbo.mean(), abs=0.02)
    assert np.all(np.diff(found) > 0)
    assert exact.log_p.mean() - 0.02 < found[-1] < exact.log_p.mean()


# The encoder's gradient.


class PerDraw(IWAE):
    """An IWAE whose q(z|x) has a shift for each row, so that each draw's gradient is seen."""

    def encode(self, x):
        if getattr(self, "shift", None) is None:
            return super().encode(x)
        return tuple(part + move for part, move in zip(super().encode(x), self.shift, strict=True))


def gradients(k, doubly, matched=False, beta=1.0):
    """Of `DRAWS` draws for one image: each draw's of q's parameters, and the mean one of the decoder's."""
    model = linear_vae(matched, PerDraw, num_samples=k, doubly_reparameterized=doubly)
    model.compile()
    model.beta_end.assign(beta)
    model.shift = [tf.zeros((DRAWS, 2)), tf.zeros((DRAWS, 2))]
    x = tf.repeat(tf.constant(POINTS[:1], "float32"), DRAWS, axis=0)

    @tf.function(autograph=False)
    def run(seed):
        with tf.GradientTape(persistent=True) as tape, drawing(PerImage(seed, np.arange(DRAWS))):
            tape.watch(model.shift)
            loss = tf.reduce_sum(model.terms(x, training=True)["descended"])
        return tf.concat(tape.gradient(loss, model.shift), 1), tape.gradient(
            loss, model.decoder.trainable_weights
        )

    of_q, of_decoder = run(tf.constant(5, "int64"))
    return of_q.numpy(), flat(of_decoder) / DRAWS


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("k", [2, 6])
def test_both_gradients_have_one_expectation(k, beta):
    """Of the same draws: the encoder's within four standard errors, the decoder's is the same."""
    plain, decoder = gradients(k, False, beta=beta)
    doubly, same = gradients(k, True, beta=beta)
    apart = plain - doubly
    errors = apart.std(axis=0) / np.sqrt(DRAWS)
    assert np.all(np.abs(apart.mean(axis=0)) < 4 * errors)
    assert np.all(errors < 0.1 * np.abs(plain).mean(axis=0))
    np.testing.assert_allclose(decoder, same, rtol=1e-4, atol=1e-5)


def test_at_the_exact_posterior_the_doubly_reparameterised_gradient_has_no_noise():
    """Every weight is p(x) there, whatever z is."""
    plain, _ = gradients(5, False, matched=True)
    doubly, _ = gradients(5, True, matched=True)
    assert np.abs(doubly).max() < 1e-4 < 0.1 < np.abs(plain).std()


def test_the_signal_to_noise_ratio_falls_with_k_and_rises_with_the_option():
    """Like k^−½ (Rainforth et al. 2018) and k^½ (Tucker et al. 2019); |E g| is told by the second."""
    ks, plain, doubly = np.array([4, 16, 64]), [], []
    for k in ks:
        each, _ = gradients(int(k), True)
        signal = np.linalg.norm(each.mean(axis=0))
        doubly.append(signal / np.sqrt(each.var(axis=0).sum()))
        plain.append(signal / np.sqrt(gradients(int(k), False)[0].var(axis=0).sum()))
    slopes = [np.polyfit(np.log(ks), np.log(ratios), 1)[0] for ratios in (plain, doubly)]
    assert slopes == pytest.approx([-0.5, 0.5], abs=0.1), (plain, doubly)


# In training.


def test_the_warm_up_weighs_the_ratio_and_the_loss_that_is_shown_has_none():
    """Two small steps from one place: `loss` is −L_k, whatever β is; what is descended has β."""
    model = small_vae(IWAE, num_samples=4)
    model.build((None, 8, 8))
    shown = terms(model)
    for beta in (0.0, 0.5, 1.0):
        model.beta_end.assign(beta)
        found = terms(model, training=True)
        np.testing.assert_allclose(found["loss"], shown["loss"], rtol=1e-6)
        apart = np.abs(found["descended"][:, 0] - shown["loss"]).max()
        assert (apart < 1e-4) == (beta == 1.0)


OPTIONS = {"num_samples": 5, "doubly_reparameterized": True}


@pytest.fixture(scope="module")
def usual():
    return fitted(IWAE, optimizer=keras.optimizers.SGD(1e-2), **OPTIONS)


@pytest.mark.slow
def test_xla_makes_the_same_steps(usual):
    options = OPTIONS | {"optimizer": keras.optimizers.SGD(1e-2)}
    columns, weights = fitted(IWAE, jit_compile=True, **options)
    np.testing.assert_allclose(columns["loss"], usual[0]["loss"], rtol=1e-5)
    np.testing.assert_allclose(weights, usual[1], atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_descends_the_same_bound(usual, dtype):
    """Of 16 bits 8 or 11 are the number's own."""
    options = OPTIONS | {"optimizer": keras.optimizers.SGD(1e-2), "dtype": dtype}
    columns, _ = fitted(IWAE, **options)
    np.testing.assert_allclose(columns["loss"], usual[0]["loss"], rtol=0.02)
    assert columns["loss"][-1] < columns["loss"][0]


def test_networks_that_act_in_training_as_they_do_not_elsewhere():
    """A user's encoder with Dropout: it is asked once an image, and all k draws are from one q."""
    keras.utils.set_random_seed(0)
    x, z = keras.Input((8, 8)), keras.Input((2,))
    hidden = layers.Dropout(0.5, seed=1)(layers.Dense(16, "relu")(layers.Flatten()(x)))
    encoder = keras.Model(x, [layers.Dense(2)(hidden), layers.Dense(2)(hidden)])
    decoder = keras.Model(z, layers.Reshape((8, 8))(layers.Dense(64)(z)))
    options = {"encoder": encoder, "decoder": decoder, "doubly_reparameterized": True}
    model = small_vae(IWAE, keras.optimizers.Adam(1e-2), jit_compile=False, **options)
    history = model.fit(X, batch_size=20, epochs=15, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 1
    np.testing.assert_array_equal(model.encode(X)[0], model.encode(X)[0])


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), ("5", TypeError)]
)
def test_a_number_of_samples_that_makes_no_sense_is_refused(k, error):
    with pytest.raises(error, match="'num_samples': expected a positive integer"):
        IWAE(2, num_samples=k)


# What uses it: −L_k is not called an ELBO.


@pytest.fixture(scope="module")
def linear():
    return linear_vae(False, IWAE, num_samples=16), closed_form(linear_vae(False), POINTS)


def test_the_elbo_and_the_bound_are_told_apart(linear):
    model, exact = linear
    found = evaluation.elbo(model, POINTS, num_samples=50)
    assert list(found) == ["elbo", "bound", "reconstruction_loss", "kl_loss"]
    assert found["elbo"].mean == pytest.approx(exact.elbo.mean(), abs=0.05)
    of_16 = evaluation.log_likelihood(model, np.repeat(POINTS, 50, axis=0), 16).estimate
    assert found["bound"].mean == pytest.approx(of_16.mean, abs=0.05)
    assert found["bound"].mean > found["elbo"].mean + 0.1


def test_the_report_has_both_and_the_gap_is_of_the_elbo(linear, tmp_path):
    model, _ = linear
    x = POINTS.astype("float32")
    found = evaluation.evaluate(model, Images("points", x[:12], x[12:]), measures=["elbo", "gap"])
    elbo, gap = found.metrics["elbo"], found.metrics["gap"]
    assert gap["test"] == elbo["elbo"]
    found.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"{elbo['elbo']['mean']:.2f}" in text
    assert f"| bound that it is trained on | {elbo['bound']['mean']:.2f}" in text


def test_the_score_of_an_exported_model_is_the_elbo(linear):
    model, exact = linear
    x = np.repeat(POINTS[:1].astype("float32"), 3000, axis=0)
    given = {"images": tf.constant(x), "seed": tf.range(3000, dtype="int64")}
    score = BY_NAME["score"].compute(model, given)["elbo"].numpy()
    assert score.mean() == pytest.approx(exact.elbo[0], abs=4 * score.std() / np.sqrt(3000))


def test_the_curves_name_both():
    columns, _ = fitted(IWAE, num_samples=3)
    upper, lower, *_ = plots.train_process(columns).axes
    lines = {line.get_label().split("\n")[0]: line.get_ydata() for line in upper.get_lines()}
    assert list(lines) == ["loss (−bound)", "−ELBO", "reconstruction"]
    np.testing.assert_array_equal(lines["−ELBO"], columns["elbo_loss"])
    assert [line.get_label().split("\n")[0] for line in lower.get_lines()] == ["KL"]


def test_the_summary_of_the_command_names_both(capsys, tmp_path):
    record = {"test": {"loss": 95.0, "elbo_loss": 98.5, "kl_loss": 20.0}, "seconds": 3}
    model = IWAE(2, num_samples=3)
    train._summary(record | {"trained_steps": 10}, tmp_path, model, [])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["Test", "−ELBO", "98.50", "nats", "per", "image"],
        ["KL", "20.00"],
        ["loss", "(−bound)", "95.00"],
    ]
