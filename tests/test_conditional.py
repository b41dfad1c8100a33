"""The ConditionalVAE: its mathematics by NumPy and in closed form, its condition by name, quadrants, pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from plot_helpers import shown, tiles
from scipy import stats

from vae_tf import (
    VAE,
    Condition,
    ConditionalVAE,
    Gaussian,
    Images,
    evaluation,
    export_decoder,
    generate_from_saved_model,
    plots,
)
from vae_tf.errors import InvalidTypeError, InvalidValueError
from vae_tf.export import c_api
from vae_tf.export.graph import call, serve_graph, signature_defs
from vae_tf.export.signatures import BY_NAME

X, Y = blobs(30, (4, 4)) > 100, np.arange(30) % 3
POSES = np.random.default_rng(0).normal(size=(30, 2)).astype("float32")


def built(shape=(4, 4), random=True, **kwargs):
    """A linear model with weights of some size, so that everything depends on everything."""
    options = {"num_classes": 3} if "condition" not in kwargs else {}
    model = ConditionalVAE(2, (), seed=0, **options, **kwargs)
    model.build((None, *shape))
    draws = np.random.default_rng(1)
    for weight in model.trainable_weights if random else ():
        weight.assign(draws.normal(0, 0.4, weight.shape))
    return model


def by_numpy(network, *inputs):
    """A linear network, on inputs side by side; in float64."""
    kernel, bias = map(np.float64, network.get_weights())
    return np.concatenate([np.reshape(i, (len(i), -1)) for i in inputs], axis=1) @ kernel + bias


# The mathematics.


@pytest.mark.parametrize("told", ["label", "pose"])
def test_the_loss_is_that_of_a_second_derivation(told):
    """Where q(z|x, y) is so narrow that z is its mean: cross-entropy, and the KL of two normals."""
    condition = {} if told == "label" else {"condition": Condition("pose", (2,), "float32")}
    model = built(learned_prior=True, **condition)
    kernel, bias = model.encoder.get_weights()
    model.encoder.set_weights([kernel * [1, 1, 0, 0], np.append(bias[:2], [-30, -30])])
    y, rows = (Y, np.eye(3)[Y]) if told == "label" else (POSES, POSES)
    z, log_var = np.split(by_numpy(model.encoder, X, rows), 2, axis=1)
    mean, prior_log_var = np.split(by_numpy(model.prior_network, rows), 2, axis=1)
    logits, x = by_numpy(model.decoder, z, rows), X.reshape(30, -1)
    entropy = (np.logaddexp(0, logits) - x * logits).sum(1)
    ratio = (np.exp(log_var) + (z - mean) ** 2) / np.exp(prior_log_var)
    kl = 0.5 * (ratio - 1 + prior_log_var - log_var).sum(1)
    terms = model.terms(tf.constant(X, "float32"), tf.constant(y))
    np.testing.assert_allclose(terms["reconstruction_loss"], entropy, rtol=1e-4)
    np.testing.assert_allclose(terms["kl_loss"], kl, rtol=1e-4)
    np.testing.assert_allclose(terms["loss"], entropy + kl, rtol=1e-4)


def test_importance_weights_give_the_exact_likelihood_of_a_linear_model():
    """p(x|y) = N(mean(y), W diag(v(y)) Wᵀ + σ² I), where p(z|y) = N(m(y), diag v(y)) is learned."""
    x = np.random.default_rng(2).normal(0.5, 0.7, (6, 5)).astype("float32")
    model = built((5,), learned_prior=True, likelihood=Gaussian(sigma=0.5))
    kernel, bias = model.encoder.get_weights()  # q(z|x, y) is wider than the posterior
    model.encoder.set_weights([0.1 * kernel, 0 * bias + [0, 0, 1, 1]])
    found = model.log_weights(x, 20_000, label=Y[:6], seed=0)
    estimate = np.logaddexp.reduce(np.float64(found), axis=0) - np.log(len(found))
    rows = np.eye(3)[Y[:6]]
    m, log_var = np.split(by_numpy(model.prior_network, rows), 2, axis=1)
    w = np.float64(model.decoder.get_weights()[0])[:2]
    for value, image, centre, variance in zip(
        estimate, x, by_numpy(model.decoder, m, rows), np.exp(log_var), strict=True
    ):
        exact = stats.multivariate_normal(centre, w.T @ np.diag(variance) @ w + 0.25 * np.eye(5))
        assert value == pytest.approx(exact.logpdf(image), abs=0.05)


@pytest.mark.parametrize("learned_prior", [False, True])
def test_a_seed_has_the_same_draws_for_every_label(learned_prior):
    """z itself where its prior is N(0, I); its distance from the label's mean where it is learned."""
    model, z = built(learned_prior=learned_prior), {}
    for label in range(3):
        given = {"seed": tf.constant([5, 6], tf.int64), "label": tf.constant([label] * 2, tf.int64)}
        prior = model.prior(tf.constant([label]))
        codes = BY_NAME["generate"].compute(model, given)["z"]
        z[label] = np.array((codes - prior.mean()) / np.exp(0.5 * np.array(prior.log_var)))
    np.testing.assert_allclose(z[0], z[1], atol=1e-5)
    np.testing.assert_allclose(z[0], z[2], atol=1e-5)
    assert (model.generate(2, seed=5, label=0) != model.generate(2, seed=5, label=1)).any()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("network", [{"hidden_units": (8,)}, {"network": "conv", "filters": (4,)}])
def test_an_array_is_trained_on_saved_and_loaded(policy, network, tmp_path):
    condition = Condition("pose", (2,), "float32")
    model = ConditionalVAE(
        2, condition=condition, learned_prior=True, seed=0, dtype=policy, **network
    )
    model.compile()
    history = model.fit(X, POSES, batch_size=10, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.condition == condition
    images = model.generate(3, seed=1, pose=POSES[:3])
    np.testing.assert_allclose(again.generate(3, seed=1, pose=POSES[:3]), images, atol=1e-5)
    assert not np.allclose(images, model.generate(3, seed=1, pose=-POSES[:3]), atol=1e-4)


# The condition, by its name.


@pytest.mark.parametrize("name", ["label", "digit", "condition"])
def test_every_call_takes_the_condition_by_its_name(name):
    model = built(condition=Condition(name, num_classes=3))
    z, one, all_ = np.zeros((30, 2)), {name: 2}, {name: Y}
    pairs = [
        (model.generate(3, seed=1, **one), model.generate(3, 1, 2)),
        (model.reconstruct(X, **all_), model.reconstruct(X, Y)),
        (model.code(X, **all_), model.code(X, Y)),
        (model.decode_images(z, **all_), model.decode_images(z, Y)),
        (model.interpolate(X[0], X[1], num=3, **one), model.interpolate(X[0], X[1], 3, 2)),
        (model.encode(X, **all_)[0], model.encode(X, Y)[0]),
        (model.decode(z, **all_), model.decode(z, Y)),
        (model.posterior(X, **all_).mean(), model.posterior(X, Y).mean()),
        (model.log_weights(X, 4, seed=2, **all_), model.log_weights(X, 4, Y, seed=2)),
        (model.generate(3, seed=1, condition=2), model.generate(3, 1, 2)),
        (model.encode(X, condition=Y)[0], model.encode(X, Y)[0]),
    ]
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'label'.*labels from 0 to 2.*None"),
        ({"label": 3}, "'label': expected labels from 0 to 2. Received: 3"),
        ({"label": -1}, "'label': expected labels from 0 to 2. Received: -1"),
        ({"label": [0, 1, 5, 7]}, "labels from 0 to 2. Received: 5, 7"),
        ({"label": [0, 1, 2]}, "one for all, or one for each of 4 rows. Received: 3"),
        ({"label": 1.0}, "labels from 0 to 2.*values of float64"),
        ({"label": "two"}, "'label'.*numbers"),
        ({"label": np.eye(3)}, r"rows, of shape \(3, 3\).*argmax"),
        ({"labels": 1}, "'labels'.*argument of `generate`: num, seed, label.*is 'label'"),
        ({"label": 1, "condition": 1}, "'label'.*not both"),
    ],
)
def test_what_is_no_label_is_refused_by_name_and_range(given, message):
    model = built()
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        model.generate(4, **given)


def test_a_model_without_a_condition_takes_no_label():
    model = VAE(2, (), seed=0)
    model.build((None, 4, 4))
    for call_ in (lambda: model.generate(2, label=1), lambda: model.encode(X, label=Y)):
        with pytest.raises(InvalidTypeError, match=r"'label'.*A VAE has no condition"):
            call_()


@pytest.mark.parametrize("late", [False, True])
def test_a_label_that_there_is_not_stops_training_in_a_data_set_too(late):
    labels = np.where(np.arange(30) >= (20 if late else 0), 3, Y)
    model = built(random=False)
    model.compile()
    with pytest.raises(InvalidValueError, match=r"'y': expected labels from 0 to 2\. Received: 3"):
        model.fit(tf.data.Dataset.from_tensor_slices((X, labels)).batch(10), verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConditionalVAE(num_classes=0), "'num_classes'"),
        (lambda: ConditionalVAE(num_classes=3, condition=Condition()), "'num_classes'.*condition"),
        (lambda: ConditionalVAE(condition=3), "'condition'.*vae_tf.Condition"),
        (lambda: Condition("seed"), "'condition'.*'seed'"),
        (lambda: Condition("two words"), "'condition'.*'two words'"),
        (lambda: Condition("pose", (0,)), "'condition'"),
        (lambda: Condition("pose", (2,), num_classes=3), "'num_classes'"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(make, message):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        make()


def test_no_condition_may_have_the_name_of_an_input_of_a_signature():
    for name in {name for row in BY_NAME.values() for name in row.inputs}:
        with pytest.raises(InvalidValueError, match="'condition'"):
            Condition(name)


# The exported graph.


def test_an_exported_model_names_the_range_of_a_label_that_there_is_not(tmp_path):
    """In any TensorFlow: in Python's, and in the C library's sessions, which TF Serving runs."""
    path, words = export_decoder(built(), tmp_path / "m"), "labels from 0 to 2. Received: 7"
    with pytest.raises(InvalidValueError, match=words):
        generate_from_saved_model(path, 4, seed=0, label=[0, 7, 1, 9])
    signature = signature_defs(serve_graph(path))["generate"]
    feeds = [{"seed": np.arange(2), "label": np.array([0, last])} for last in (2, 7)]
    calls = [call(signature, inputs) for inputs in feeds]
    right, wrong = c_api.run_in_fresh_process(c_api.library_path(), path, calls, 60)["outcomes"]
    assert not isinstance(right, str)
    assert "label: expected labels from 0 to 2. Received:] [7]" in wrong


# Pictures, and the report.


def test_a_row_of_pictures_for_each_label_has_the_same_draws_along_a_column():
    model = built()
    figure = plots.figures(model, X, Y, seed=3, only=["classes"])["classes"]
    grid = tiles(shown(figure.axes[0]), 4, 4)
    for label in range(3):
        expected = model.generate(10, seed=3, label=label)
        np.testing.assert_allclose(grid[label].reshape(10, 4, 4), expected, atol=1e-6)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_a_report_says_that_its_figures_are_of_a_condition():
    model = built(condition=Condition("pose", (2,), "float32"))
    found = evaluation.evaluate(model, Images("bars", X, X, POSES, POSES), num_samples=5)
    for name in ("elbo", "likelihood"):
        (caveat, *_) = found.metrics[name]["caveats"]
        assert "p(x|pose), and not to be compared with those of p(x)" in caveat
    assert "neighbours" not in found.metrics  # vectors are no labels
    titles = {section.title: section for section in found.sections}
    assert titles["Log-likelihood"].rows[0][0] == "log p(x|pose), K = 5"
