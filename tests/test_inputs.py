"""What `fit`, `evaluate` and `compile` are given: every form of input, and what is refused."""

import warnings

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from helpers import blobs
from training_helpers import each, small_vae

from vae_tf import VAE, Condition, memory
from vae_tf.engine import inputs
from vae_tf.errors import GreyValuesWarning


def make(**kwargs):
    """A model for images of 8×8, built."""
    model = small_vae(**{"latent_dim": 3, "steps_per_execution": 1, **kwargs})
    model.build((None, 8, 8))
    return model


# Every form of input.


def forms():
    x = blobs()
    floats, labels = x.astype("float32") / 255, np.arange(len(x)) % 10
    slices = tf.data.Dataset.from_tensor_slices
    return {
        "uint8 (N,H,W)": ((x,), {}),
        "uint8 (N,H,W,C)": ((x[..., None],), {}),
        "uint8 (N,D)": ((x.reshape(len(x), -1),), {}),
        "float32": ((floats,), {}),
        "float64": ((floats.astype("float64"),), {}),
        "bool": ((x > 128,), {}),
        "int64": ((x.astype("int64"),), {}),
        "list": ((floats.tolist(),), {}),
        "tensor": ((tf.constant(floats),), {}),
        "x and y": ((x, labels), {}),
        "y of strings": ((x, labels.astype(str)), {}),
        "dataset of x": ((slices(x).batch(16),), {}),
        "dataset of (x,)": ((slices((x,)).batch(16),), {}),
        "dataset of (x, y)": ((slices((x, labels)).batch(16),), {}),
        "dataset of floats": ((slices(floats).batch(16),), {}),
        "validation array": ((x,), {"validation_data": x}),
        "validation (x,)": ((x,), {"validation_data": (x,)}),
        "validation (x, y)": ((x, labels), {"validation_data": (x, labels)}),
        "validation dataset": ((x,), {"validation_data": slices((x, labels)).batch(16)}),
        "validation split": ((x, labels), {"validation_split": 0.25}),
    }


@pytest.mark.parametrize("form", forms())
def test_fit_on_every_form_of_input(form):
    arguments, kwargs = forms()[form]
    model = small_vae(jit_compile=False, hidden_units=())
    history = model.fit(*arguments, batch_size=None, epochs=2, verbose=0, **kwargs).history
    assert np.isfinite(history["loss"]).all()
    assert ("val_loss" in history) == bool(kwargs)
    assert model.image_shape in ((8, 8), (8, 8, 1), (64,))


def test_bytes_and_their_floats_are_the_same_images():
    x = blobs()
    losses = [
        small_vae(jit_compile=False).fit(images, epochs=3, verbose=0).history["loss"]
        for images in (x, x.astype("float32") / 255)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


# What the images must be.


@pytest.mark.parametrize("form", [np.asarray, lambda x: tf.data.Dataset.from_tensor_slices(x).batch(10)])  # fmt: skip
def test_grey_values_are_named_once_before_training_begins(form):
    model = make(run_eagerly=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hook, counted = each(lambda _: len(caught), "on_epoch_end")
        kwargs = {"validation_data": blobs(10), "callbacks": [hook], "verbose": 0}
        model.fit(form(blobs(20)), epochs=2, **kwargs)
    assert counted == [1, 1, 1]
    assert "no log-likelihood" in str(caught[0].message)
    assert caught[0].category is GreyValuesWarning
    assert caught[0].filename == __file__  # it points to the call of `fit`


@pytest.mark.parametrize(
    ("x", "kwargs"),
    [
        (blobs(10) > 100, {}),
        ((blobs(10) > 100) * np.uint8(255), {}),
        ((blobs(10) > 100).astype("float32"), {}),
        (blobs(10), {"binarize": True}),
        (blobs(10), {"likelihood": "gaussian"}),
    ],
)
def test_binary_images_or_another_likelihood_are_nothing_to_warn_of(x, kwargs):
    model = make(run_eagerly=True, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, verbose=0)
    assert model.optimizer.iterations == 1


def test_floats_of_any_value_are_for_a_gaussian_likelihood_alone():
    x = np.random.default_rng(0).uniform(-3, 3, (10, 8, 8)).astype("float32")
    with pytest.raises(ValueError, match=r"'x'.*floats in \[0, 1\].*values from -2\.9"):
        make(run_eagerly=True).fit(x, verbose=0)
    model, twin = (make(likelihood="gaussian", run_eagerly=True) for _ in range(2))
    loss = model.fit(x, shuffle=False, verbose=0).history["reconstruction_loss"]
    z_mean, z_log_var = twin.encoder(x)
    twin.begin(x)
    means = twin.decoder(z_mean + tf.exp(0.5 * z_log_var) * twin.sampling((z_mean * 0, z_mean * 0)))
    sigma = np.exp(np.array(twin.likelihood.log_sigma))
    expected = -scipy.stats.norm(means, sigma).logpdf(x).sum(axis=(1, 2)).mean()
    assert loss == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused_by_either(likelihood, value):
    x = np.zeros((10, 8, 8), "float32")
    x[3, 1, 2] = value
    with pytest.raises(ValueError, match=r"'x'.*finite values.*1 of 10 images.*\(3, 1, 2\)"):
        make(likelihood=likelihood, run_eagerly=True).fit(x, verbose=0)


# What bad input gets.


BAD_DATA = {
    "above 1": (lambda x: x * 255.0, ValueError, r"floats in \[0, 1\].*0\.0039"),
    "negative": (lambda x: x - 0.5, ValueError, r"floats in \[0, 1\]"),
    "nan": (lambda x: np.where(np.arange(8) == 3, np.nan, x), ValueError, "NaN"),
    "empty": (lambda x: x[:0], ValueError, "at least one image"),
    "text": (lambda x: np.array(["a", "b"]), TypeError, "numbers"),
    "rank 1": (lambda x: x[0, 0], ValueError, "shape"),
    "generator": (lambda x: iter([x]), TypeError, "tf.data.Dataset"),
    "empty data set": (
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8).take(0),
        ValueError,
        "empty data set",
    ),
    "data set above 1": (
        lambda x: tf.data.Dataset.from_tensor_slices(x * 255).batch(8),
        ValueError,
        r"floats in \[0, 1\]",
    ),
    "weights in a data set": (
        lambda x: tf.data.Dataset.from_tensor_slices((x, x[:, 0, 0], x[:, 0, 0])).batch(8),
        ValueError,
        "sample_weight",
    ),
}


def slices(x):
    return tf.data.Dataset.from_tensor_slices(x)


def colour(x):
    return np.repeat(x[..., None], 3, axis=-1)


ONE = r"single images, of shape \(8, 8{}\)\. Batch it first: dataset\.batch\(100\)"
LAST = r"channels last.*transpose\(0, 2, 3, 1\).*tf\.transpose\(x, \(0, 2, 3, 1\)\)"
ROWS = r"dictionaries with the keys .*dataset\.map\(lambda row: row\['image'\]\)"
BAD_DATA |= {
    "channels first": (lambda x: colour(x).transpose(0, 3, 1, 2), ValueError, LAST),
    "channels first, of a data set": (
        lambda x: slices(colour(x).transpose(0, 3, 1, 2)).batch(8),
        ValueError,
        LAST,
    ),
    "unbatched": (lambda x: slices(x[..., None]), ValueError, ONE.format(", 1")),
    "unbatched in colour": (lambda x: slices(colour(x)), ValueError, ONE.format(", 3")),
    "unbatched without channels": (slices, ValueError, ONE.format("")),
    "unbatched with labels": (
        lambda x: slices((x[:, :, :6], np.zeros(len(x)))),
        ValueError,
        "single images",
    ),
    "unbatched vectors": (lambda x: slices(x.reshape(len(x), -1)), ValueError, "Batch it first"),
    "rows of TFDS": (
        lambda x: slices({"image": x, "label": np.zeros(len(x))}),
        ValueError,
        ROWS + r"\.batch",
    ),
    "batches of TFDS": (
        lambda x: slices({"image": x, "label": np.zeros(len(x))}).batch(8),
        ValueError,
        ROWS + r"\.$",
    ),
    "dictionary": (lambda x: {"image": x}, TypeError, r"Give the images alone: x\['image'\]"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_fit_refuses_before_training(case):
    spoil, error, words = BAD_DATA[case]
    model = small_vae()
    with pytest.raises(error, match=words):
        model.fit(spoil(blobs(40).astype("float32") / 255), verbose=0)
    assert model.optimizer.iterations == 0
    assert not model.built


@pytest.mark.parametrize("argument", ["sample_weight", "class_weight"])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_weights_are_refused(argument, method):
    x = blobs()
    value = np.ones(len(x)) if argument == "sample_weight" else {0: 1.0}
    with pytest.raises(ValueError, match=argument):
        getattr(small_vae(), method)(x, verbose=0, **{argument: value})


def test_weights_in_validation_data_are_refused():
    x = blobs()
    with pytest.raises(ValueError, match="sample_weight"):
        small_vae().fit(x, validation_data=(x, x[:, 0, 0], np.ones(len(x))), verbose=0)


@pytest.mark.parametrize("name", ["loss", "metrics"])
def test_compile_refuses_a_second_loss(name):
    with pytest.raises(ValueError, match=name):
        VAE().compile(**{name: "mse"})


def test_images_of_another_shape_are_refused():
    model = small_vae()
    model.fit(blobs(), verbose=0)
    for method in (model.encode, model.reconstruct, model.predict, model.evaluate, model.fit):
        with pytest.raises(ValueError, match=r"\(N, 8, 8\).*\(64, 9, 9\)"):
            method(blobs(shape=(9, 9)))


def test_labels_must_match_the_images():
    with pytest.raises(ValueError, match="'y'"):
        small_vae().fit(blobs(10), np.zeros(9), verbose=0)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (64,)])
def test_batches_that_are_all_of_one_size_are_batches(shape):
    batches = slices(blobs(32).reshape(32, *shape)).batch(16, drop_remainder=True)
    model = small_vae()
    inputs.checked_source(model, batches, None, "x", "y")
    assert model.image_shape == shape
    with pytest.raises(ValueError, match="Batch it first"):
        inputs.checked_source(model, batches.unbatch(), None, "x", "y")


def test_channels_come_first_for_a_model_that_was_built_so():
    model = small_vae()
    model.build((None, 3, 8, 8))
    assert model.reconstruct(blobs(4, (3, 8, 8))).shape == (4, 3, 8, 8)


class LabelledVAE(VAE):
    """A VAE that is told of labels, and does not listen."""

    condition = Condition("label", num_classes=10)


@pytest.mark.parametrize("form", ["arrays", "data set"])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_one_hot_labels_are_refused_with_the_line_that_makes_numbers_of_them(form, dtype):
    x, y = blobs(20), np.eye(10, dtype=dtype)[np.arange(20) % 10]
    model = small_vae(LabelledVAE)
    arguments = (x, y) if form == "arrays" else (slices((x, y)).batch(10),)
    line = r"y\.argmax\(axis=-1\)" if form == "arrays" else r"tf\.argmax\(y, axis=-1\)"
    with pytest.raises(ValueError, match=rf"'y'.*\(\d+, 10\).*{line}"):
        model.fit(*arguments, verbose=0)
    assert not model.built


def test_labels_of_a_tfds_dictionary_are_named_for_a_model_that_needs_them():
    rows = slices({"image": blobs(), "label": np.zeros(64, int)}).batch(8)
    with pytest.raises(ValueError, match=r"row: \(row\['image'\], row\['label'\]\)"):
        small_vae(LabelledVAE).fit(rows, verbose=0)


def test_colours_get_the_advice_that_is_theirs():
    with pytest.warns(GreyValuesWarning, match="'gaussian', 'discretized_logistic' or") as caught:
        make().check_support(colour(blobs(4)))
    assert "binar" not in str(caught[0].message)


# What fits into memory.


@pytest.mark.parametrize("compiled", [True, False])
def test_weights_that_do_not_fit_are_refused_before_they_are_made(monkeypatch, compiled):
    model = small_vae(VAE, hidden_units=(100,)) if compiled else VAE(hidden_units=(100,))
    needed = 4 * 3072 * 100  # the first layer; four times of it with gradient and moments
    monkeypatch.setattr(memory, "free", lambda: (4 if compiled else 1) * needed - 1)
    monkeypatch.setattr(keras.initializers.HeUniform, "__call__", None)  # it would be made by this
    with pytest.raises(
        ValueError, match=r"32×32×3, of which a layer makes 3072×100 weights"
    ) as error:
        model.fit(colour(blobs(9, (32, 32))), verbose=0) if compiled else model.build(
            (None, 32, 32, 3)
        )
    assert ("Adam's moments" in str(error.value)) == compiled
    assert "resize=64" in str(error.value)


def test_a_batch_whose_layers_do_not_fit_is_refused(monkeypatch):
    model = small_vae(VAE, network="conv", filters=(8,))
    model.build((None, 16, 16, 1))
    # The input twice, its 8 maps of a quarter, the code; the decoder's the same, and 8 whole maps.
    monkeypatch.setattr(memory, "free", lambda: 4 * 20 * 8 * 16 * 16)
    with pytest.raises(
        ValueError, match=r"'batch_size'.*20 images of 16×16×1 at once.*batch_size=\d"
    ):
        model.fit(blobs(30, (16, 16))[..., None], batch_size=20, verbose=0)
