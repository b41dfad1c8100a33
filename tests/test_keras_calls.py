"""Calls of `keras.Model` beside `fit`: on one batch, progress bars, summaries, other forms of saving."""

import functools
import io
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs
from keras.src.backend.tensorflow.trainer import TFEpochIterator
from small_models import Autoencoder, Labelled, TwoLayers
from training_helpers import small_vae, states

import vae_tf
from vae_tf import export
from vae_tf.errors import InvalidValueError

X = blobs(30)
LABELS = np.arange(30) % 4


@pytest.fixture(scope="module")
def trained():
    model = small_vae(jit_compile=False)
    model.fit(X, batch_size=10, verbose=0)
    return model


@pytest.mark.parametrize("steps_per_execution", [1, 2, "auto"])
def test_an_epoch_may_have_more_steps_than_there_are_batches(steps_per_execution):
    """Keras would stop where it thinks that the arrays are at their end, and warn."""
    model = small_vae(run_eagerly=True, steps_per_execution=steps_per_execution)
    history = model.fit(X, batch_size=10, steps_per_epoch=7, epochs=2, verbose=0)
    assert (model.steps_made, history.params["steps"]) == (14, 7)
    held = {"validation_data": X, "validation_steps": 2, "validation_batch_size": 10}
    model.fit(X, batch_size=10, steps_per_epoch=2, epochs=9, initial_epoch=7, verbose=0, **held)
    assert model.steps_made == 18


# On one batch.


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_train_on_batch_is_a_step_of_fit(run_eagerly):
    one, other = (small_vae(run_eagerly=run_eagerly, jit_compile=False) for _ in range(2))
    one.build(X.shape)
    one.begin(X.astype("float32") / 255)  # as `fit` does
    logs = [one.train_on_batch(X[rows : rows + 10], return_dict=True) for rows in (0, 10, 20)]
    history = other.fit(X, batch_size=10, shuffle=False, verbose=0).history
    for name, value in logs[0].items():  # each call's own, and the mean of an epoch's
        assert np.mean([log[name] for log in logs]) == pytest.approx(history[name][0], rel=1e-5)
        assert isinstance(value, float)
    twins = zip(states(one).items(), states(other).values(), strict=True)
    for (name, value), twin in twins:
        np.testing.assert_allclose(value, twin, rtol=1e-5, atol=1e-7, err_msg=name)
    assert one.train_on_batch(X)[0] == pytest.approx(logs[-1]["loss"], rel=0.05)


def test_test_and_predict_on_batch_are_evaluate_and_predict(trained):
    np.testing.assert_allclose(trained.test_on_batch(X), trained.evaluate(X, verbose=0), rtol=1e-6)
    again = trained.test_on_batch(X, return_dict=True)
    assert sorted(again.values()) == sorted(trained.test_on_batch(X))
    images = trained.predict_on_batch(X)
    assert isinstance(images, np.ndarray)
    np.testing.assert_allclose(images, trained.predict(X, verbose=0), rtol=1e-6)
    np.testing.assert_allclose(images, trained.reconstruct(X), rtol=1e-6)


def test_a_batch_may_have_a_condition_and_no_weights():
    model = small_vae(Labelled, run_eagerly=True)
    x = X[..., None]
    model.train_on_batch(x, LABELS)
    whole = model.evaluate(x, LABELS, verbose=0)
    np.testing.assert_allclose(model.test_on_batch(x, LABELS), whole, rtol=1e-6)
    with pytest.raises(ValueError, match="label"):
        model.train_on_batch(x)
    with pytest.raises(ValueError, match="sample_weight"):
        model.train_on_batch(x, LABELS, sample_weight=np.ones(30))


# What a user sees.


def test_progress_bars_end_at_the_number_of_their_batches(capsys, monkeypatch):
    """After a `fit` with several steps an execution: more than `predict` has, and 7 that do not divide."""
    always = functools.partial(keras.utils.Progbar, interval=0)  # as where an execution takes long
    monkeypatch.setattr("keras.src.callbacks.progbar_logger.Progbar", always)

    def check(batches):
        bars = re.findall(r"\b(\d+)/(\d+)\b", re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out))
        assert int(bars[-1][0]) == batches
        assert all(int(done) <= int(target) == batches for done, target in bars)

    for steps in ("auto", 7):
        model = small_vae(jit_compile=False, steps_per_execution=steps)
        model.fit(X, batch_size=2, verbose=1)
        check(15)
        model.evaluate(X, batch_size=7, verbose=1)
        check(5)
        model.predict(X, batch_size=5, verbose=1)
        check(6)


def test_an_iterator_that_is_handed_over_for_each_validation_stays_as_it_is():
    iterator = TFEpochIterator(
        x=X, batch_size=2, steps_per_execution=7, distribute_strategy=tf.distribute.get_strategy()
    )
    model = small_vae(jit_compile=False)
    for _ in range(2000):  # one for each epoch of a `fit`
        model._maybe_symbolic_build(iterator=iterator)
    assert [steps[:2] for steps in iterator] == [(0, 6), (7, 13), (14, 14)]


def summary_of(model):
    lines = io.StringIO()
    model.summary(print_fn=lambda line, line_break=True: lines.write(line + "\n"), line_length=78)
    return lines.getvalue()


def test_a_summary_follows_the_images_and_counts_the_weights(trained):
    text = summary_of(trained)
    first_column = " ".join(line.split("│")[1] for line in text.splitlines() if "│" in line)
    kinds = ["InputLayer", "Functional", "Sampling", "Functional", "Bernoulli"]
    assert re.findall(r"\((\w+)\)", first_column) == kinds
    assert "?" not in text
    weights = sum(weight.shape.num_elements() for weight in trained.trainable_weights)
    assert f"Total params: {weights:,}" in text
    assert "Non-trainable params: 0 " in text
    assert text.count("(None, 8, 8)") == 3
    assert "conv_0" in summary_of_nested()


def summary_of_nested():
    lines = []
    model = vae_tf.VAE(2, network="conv", filters=(4,))
    model.build((None, 8, 8, 1))
    model.summary(print_fn=lambda line, line_break=True: lines.append(line), expand_nested=True)
    return "\n".join(lines)


@pytest.mark.parametrize("kind", [Labelled, Autoencoder, TwoLayers])
def test_a_summary_of_any_model_has_all_its_weights(kind):
    model = kind() if kind is not Labelled else kind(2, (8,))
    model.build((None, 8, 8, 1))
    weights = sum(weight.shape.num_elements() for weight in model.trainable_weights)
    assert f"Trainable params: {weights:,}" in summary_of(model)


def test_a_summary_before_the_first_image_says_what_is_missing():
    with pytest.raises(ValueError, match=r"`as_functional`.*Call `fit` first"):
        vae_tf.VAE(2).as_functional()
    assert "Trainable params: 0 " in summary_of(vae_tf.VAE(2))


def test_the_functional_model_has_the_parts_in_their_order(trained):
    """What `plot_model` draws; without noise in the code it is `reconstruct`."""
    functional = trained.as_functional()
    names = [layer.name for layer in functional.layers]
    assert [name.rstrip("_0123456789") for name in names] == [
        "x",
        "encoder",
        "sampling",
        "decoder",
        "bernoulli",
    ]
    assert functional.output_shape == (None, 8, 8)
    assert trained.input_shape == (None, 8, 8)
    model = Autoencoder()
    model.build((None, 8, 8, 1))
    x = X[..., None].astype("float32") / 255
    np.testing.assert_allclose(model.as_functional()(x), model.reconstruct(x), rtol=1e-5)
    labelled = Labelled(2, (8,))
    labelled.build((None, 8, 8, 1))
    assert labelled.input_shape == [(None, 8, 8, 1), (None,)]
    assert [tensor.name for tensor in labelled.as_functional().inputs] == ["x", "label"]


# Other forms of saving.


@pytest.mark.slow
def test_keras_export_writes_what_export_decoder_does(trained, tmp_path):
    trained.export(tmp_path / "exported", verbose=False)
    path = export.export_decoder(trained, tmp_path / "decoder", with_encoder=True)
    one, other = (tf.saved_model.load(str(p)).signatures for p in (tmp_path / "exported", path))
    assert one.keys() == other.keys() >= {"serving_default", "generate", "encode"}
    seeds = tf.constant(vae_tf.random.row_seeds(3, 4))
    for name, inputs in (("generate", {"seed": seeds}), ("decode", {"z": tf.ones((2, 2))})):
        for key, value in one[name](**inputs).items():
            np.testing.assert_array_equal(value, other[name](**inputs)[key])
    np.testing.assert_allclose(
        one["generate"](seed=seeds)["images"], trained.generate(4, seed=3), rtol=1e-6
    )
    for kwargs in ({"format": "onnx"}, {"input_signature": [keras.InputSpec(shape=(None, 8, 8))]}):
        with pytest.raises(InvalidValueError, match=next(iter(kwargs))):
            trained.export(tmp_path / "other", **kwargs)
    with pytest.raises(InvalidValueError, match=r"'path'.*does not exist yet"):
        trained.export(tmp_path / "exported")


@pytest.mark.slow
def test_a_quantised_model_draws_nearly_the_same_and_is_loaded_as_it_is(tmp_path):
    model = small_vae(run_eagerly=True)
    model.fit(X, epochs=3, verbose=0)
    images, loss = model.generate(5, seed=0), model.evaluate(X, verbose=0)[0]
    with pytest.warns(UserWarning, match="quantize"):  # Keras's: a Reshape has nothing to quantise
        model.quantize("int8")
    assert model.decoder.get_layer("logits").kernel.dtype == "int8"
    np.testing.assert_allclose(model.generate(5, seed=0), images, atol=0.02)
    assert model.evaluate(X, verbose=0)[0] == pytest.approx(loss, rel=0.01)
    model.save(tmp_path / "model.keras")
    path = export.export_decoder(model, tmp_path / "decoder")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):  # Keras's
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.decoder.get_layer("logits").kernel.dtype == "int8"
    np.testing.assert_array_equal(loaded.generate(5, seed=0), model.generate(5, seed=0))
    exported = export.generate_from_saved_model(path, 5, seed=0)
    np.testing.assert_allclose(exported, model.generate(5, seed=0), rtol=1e-5)


@pytest.mark.parametrize("name", ["model.h5", "model.weights.h5"])
def test_the_old_format_holds_the_weights(trained, name, tmp_path):
    if name == "model.h5":
        with pytest.warns(UserWarning, match=r"no model of an own class from HDF5.*\.keras"):
            trained.save(tmp_path / name)
    else:
        trained.save_weights(tmp_path / name)
    twin = vae_tf.VAE(2, (16,), seed=9)
    twin.build((None, 8, 8))
    twin.load_weights(tmp_path / name)
    np.testing.assert_array_equal(twin.generate(3, seed=0), trained.generate(3, seed=0))


def test_one_kind_of_array_comes_out(trained):
    """NumPy for arrays, tensors for tensors."""
    outside = [
        trained.generate(2),
        trained.predict(X, verbose=0),
        trained.code(X),
        *trained.encode(X),
    ]
    outside += [
        trained.decode(np.zeros((2, 2))),
        trained.log_weights(X > 100, 2),
        trained.reconstruct(X),
    ]
    assert {type(array) for array in outside} == {np.ndarray}
    inside = [*trained.encode(tf.constant(X)), trained.decode(tf.zeros((2, 2)))]
    assert all(tf.is_tensor(tensor) for tensor in inside)


@pytest.mark.slow
def test_many_models_in_one_process_are_no_retracing(caplog):
    """TensorFlow counts a function's tracings by its code; each model has but one or two of its own."""
    for seed in range(5):
        small_vae(seed=seed, hidden_units=(), jit_compile=False).fit(X[:5], verbose=0)
    assert [r.getMessage()[:80] for r in caplog.records if "retracing" in r.getMessage()] == []
