"""One contract over every model class, then what is particular to `VAE`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs, run_python

import vae_tf
from vae_tf import VAE
from vae_tf.models import execution
from vae_tf.models.base import EVALUATION_SEED

MODELS = [VAE]
SMALL = {"latent_dim": 2, "hidden_units": (16,)}


def make(model_class=VAE, seed=0, run_eagerly=False, jit_compile="auto", **kwargs):
    """A small model; without XLA it is quicker to compile, where how it is run is not the matter."""
    model = model_class(**{**SMALL, "seed": seed, **kwargs})
    model.compile(run_eagerly=run_eagerly, jit_compile=jit_compile)
    return model


def numpy_elbo(model, x, noise):
    """−ELBO and its terms in NumPy float64, from the model's weights: a second derivation."""

    def dense(hidden, layers):
        for layer in layers:
            kernel, bias = (w.numpy().astype("float64") for w in layer.weights)
            hidden = hidden @ kernel + bias
            if layer.name.startswith("hidden"):
                hidden = np.maximum(hidden, 0)
        return hidden

    layers = {layer.name: layer for layer in model.encoder.layers}
    x = x.reshape(len(x), -1) / 255.0
    hidden = dense(x, [v for k, v in layers.items() if k.startswith("hidden")])
    z_mean, z_log_var = np.split(dense(hidden, [layers["z_mean_and_log_var"]]), 2, axis=1)
    z = z_mean + np.exp(0.5 * z_log_var) * noise
    p = 1 / (1 + np.exp(-dense(z, [v for v in model.decoder.layers if v.weights])))
    reconstruction = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1).mean()
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(1).mean()
    return reconstruction + kl, reconstruction, kl


# The contract.


@pytest.mark.parametrize("model_class", MODELS)
def test_fit_learns_and_reports_its_terms(model_class):
    """What it learns beats the best constant image, whose cross-entropy is known."""
    model, x = make(model_class), blobs(200)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(x, epochs=60, validation_data=blobs(50, seed=1), verbose=0).history
    names = ("loss", "reconstruction_loss", "kl_loss")
    monitored = ("beta", "gradient_norm", "active_units")
    assert set(history) == {*names, *monitored, *(f"val_{name}" for name in names)}
    p = np.mean(x / 255, axis=0)
    assert history["loss"][-1] < -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    for prefix in ("", "val_"):
        loss, reconstruction, kl = (np.array(history[prefix + name]) for name in names)
        np.testing.assert_allclose(loss, reconstruction + kl, rtol=1e-6)


@pytest.mark.parametrize("model_class", MODELS)
def test_the_gradient_reaches_every_weight(model_class):
    model = make(model_class)
    model.build((None, 8, 8))
    before = [w.numpy() for w in model.trainable_weights]
    model.fit(blobs(), epochs=3, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(weight.numpy(), old), weight.path


@pytest.mark.parametrize("model_class", MODELS)
def test_every_hyperparameter_moves_the_loss_and_the_same_ones_do_not(model_class):
    changes = [
        {}, {"latent_dim": 3}, {"hidden_units": (8,)}, {"hidden_units": ()},
        {"activation": "tanh"}, {"seed": 1}, {"kernel_initializer": "glorot_uniform"},
    ]  # fmt: skip
    losses = [
        make(model_class, run_eagerly=True, **change)
        .fit(blobs(), epochs=2, verbose=0)
        .history["loss"]
        for change in [{}, *changes]
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert len({round(loss[-1], 3) for loss in losses[1:]}) == len(changes), losses


@pytest.mark.parametrize("model_class", MODELS)
def test_batch_size_learning_rate_epochs_and_warm_up_move_the_loss(model_class):
    def loss(batch_size=32, rate=1e-3, epochs=4, warmup=0):
        model = make(model_class)
        model.compile(keras.optimizers.Adam(rate), run_eagerly=True)  # quick: nothing to compile
        hooks = [vae_tf.KLWarmup(warmup)]
        kwargs = {"batch_size": batch_size, "epochs": epochs, "callbacks": hooks}
        return model.fit(blobs(), verbose=0, **kwargs).history["loss"][-1]

    losses = [loss(), loss(batch_size=16), loss(rate=1e-2), loss(epochs=5), loss(warmup=100)]
    assert len({round(value, 3) for value in losses}) == len(losses), losses


@pytest.mark.parametrize("model_class", MODELS)
def test_save_and_reload_in_a_fresh_process(model_class, tmp_path):
    model, x = make(model_class, jit_compile=False, activation="gelu"), blobs()
    model.fit(x, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x=x)
    run_python(
        "import sys, numpy as np, vae_tf, keras\n"
        "folder = sys.argv[1]\n"
        "model = keras.models.load_model(folder + '/model.keras')\n"
        "x = np.load(folder + '/x.npz')['x']\n"
        "before = model.evaluate(x, verbose=0)\n"
        "np.savez(folder + '/out.npz', predicted=model.predict(x, verbose=0), evaluated=before,\n"
        "         generated=model.generate(5, seed=3), iterations=model.optimizer.iterations)\n"
        "model.fit(x, verbose=0)\n",
        tmp_path,
    )
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(out["predicted"], model.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_allclose(out["evaluated"], model.evaluate(x, verbose=0), rtol=1e-6)
    np.testing.assert_allclose(out["generated"], model.generate(5, seed=3), atol=1e-6)
    assert out["iterations"] == model.optimizer.iterations == 2


def test_a_model_that_was_never_compiled_comes_back_so(tmp_path):
    model = VAE(**SMALL)
    model.build((None, 8, 8))
    model.save(tmp_path / "model.keras")
    assert not keras.models.load_model(tmp_path / "model.keras").compiled


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("shape", [(8, 8), (8, 6, 1), (6, 8, 3), (20,)])
def test_any_image_shape(model_class, shape):
    x = np.random.default_rng(0).integers(0, 256, (12, *shape)).astype("uint8")
    model = make(model_class, jit_compile=False)
    model.fit(x, verbose=0)
    for images in (model.predict(x, verbose=0), model.reconstruct(x), model.generate(12, seed=0)):
        assert images.shape == x.shape
        assert images.min() >= 0
        assert images.max() <= 1
    np.testing.assert_allclose(model.predict(x, verbose=0), model.reconstruct(x), atol=1e-6)


# The mathematics.


def test_loss_against_a_second_derivation():
    """`evaluate` against NumPy in float64, on the noise that the sampling layer draws."""
    model, x = make(latent_dim=3, hidden_units=(16, 8)), blobs(40)
    model.fit(x, epochs=2, verbose=0)
    noise = vae_tf.Sampling(EVALUATION_SEED)((np.zeros((40, 3), "f"), np.zeros((40, 3), "f")))
    expected = numpy_elbo(model, x, noise.numpy().astype("float64"))
    np.testing.assert_allclose(model.evaluate(x, batch_size=40, verbose=0), expected, rtol=1e-5)


def test_the_kl_enters_through_add_loss():
    model, x = make(), blobs()
    logits = model(x)
    z_mean, z_log_var = model.encode(x)
    assert len(model.losses) == 1
    expected = np.mean(vae_tf.gaussian_kl(z_mean, z_log_var))
    assert float(model.losses[0]) == pytest.approx(expected, rel=1e-6)
    assert logits.shape == x.shape


def test_the_original_architecture_by_default():
    model = VAE()
    model.build((None, 28, 28))
    kernels = [w.shape for w in model.trainable_weights if len(w.shape) == 2]
    assert kernels == [
        (784, 512), (512, 384), (384, 256), (256, 20),
        (10, 256), (256, 384), (384, 512), (512, 784),
    ]  # fmt: skip
    activations = {
        layer.activation.__name__ for layer in model.encoder.layers if "hidden" in layer.name
    }
    assert activations == {"relu"}


def test_training_follows_adam_on_the_elbo():
    """Three steps of `fit` against a plain eager loop with the same noise and order."""
    x = blobs(30)
    fitted, looped = make(), make()
    looped.compile(run_eagerly=True, optimizer=keras.optimizers.Adam(1e-3))
    fitted.build((None, 8, 8)), looped.build((None, 8, 8))
    fitted.fit(x, batch_size=10, epochs=1, shuffle=False, verbose=0)
    for start in (0, 10, 20):
        noise = looped.sampling((tf.zeros((10, 2)), tf.zeros((10, 2))))
        images = x[start : start + 10].astype("float32") / 255
        with tf.GradientTape() as tape:
            z_mean, z_log_var = looped.encoder(images)
            logits = looped.decoder(z_mean + tf.exp(0.5 * z_log_var) * noise)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
            kl = 0.5 * (tf.exp(z_log_var) + z_mean**2 - 1 - z_log_var)
            loss = (tf.reduce_sum(entropy) + tf.reduce_sum(kl)) / 10
        weights = looped.trainable_weights
        looped.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    for one, other in zip(fitted.trainable_weights, looped.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)  # Adam moves 1e-3 a step


def test_kl_warm_up_weighs_the_kl_step_by_step():
    model, history = make(), vae_tf.StepHistory()
    hooks = [vae_tf.KLWarmup(8), history]
    model.fit(blobs(60), batch_size=10, epochs=2, verbose=0, callbacks=hooks)
    np.testing.assert_allclose(history.columns()["beta"], np.minimum(1, np.arange(1, 13) / 8))
    assert float(model.beta) == 1
    rows = history.columns()
    np.testing.assert_allclose(
        rows["loss"], rows["reconstruction_loss"] + rows["kl_loss"], rtol=1e-6
    )


def test_without_weight_on_the_kl_it_grows():
    kls = []
    for warmup in (0, 10**9):
        model = make()
        hooks = [vae_tf.KLWarmup(warmup)]
        kls.append(
            model.fit(blobs(200), epochs=40, verbose=0, callbacks=hooks).history["kl_loss"][-1]
        )
    assert kls[1] > 2 * kls[0]


# Execution: the compiled loop does what Keras's own does.


@pytest.mark.parametrize("num", [100, 105])
def test_every_image_once_an_epoch_and_each_epoch_in_another_order(num):
    rows = execution.executions((np.arange(num)[:, None],), 10, 4, seed=0)
    epochs = [[], []]
    elements = iter(rows.take(2 * 3))
    for epoch in epochs:
        for _ in range(3):
            _, full, rest = next(elements)
            epoch += [*full.numpy().ravel(), *rest.numpy().ravel()]
    assert [sorted(epoch) for epoch in epochs] == [list(range(num))] * 2
    assert epochs[0] != epochs[1]
    again = execution.executions((np.arange(num)[:, None],), 10, 4, seed=0)
    np.testing.assert_array_equal(next(iter(again))[1], next(iter(rows))[1])


@pytest.mark.slow
def test_steps_per_execution_changes_nothing_but_speed():
    """25 batches and a smaller one, in executions that divide them and that do not."""
    losses = []
    for steps_per_execution in (1, 7, 100, "auto"):
        model = make()
        model.compile(steps_per_execution=steps_per_execution)
        losses.append(model.fit(blobs(255), batch_size=10, epochs=2, verbose=0).history["loss"])
        assert model.optimizer.iterations == 52
    np.testing.assert_allclose(losses, [losses[0]] * 4, rtol=1e-6)


def test_a_data_set_trains_as_the_array_in_its_order_does():
    x = blobs(75)
    one, other = make(), make()
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
    model, history = make(), vae_tf.StepHistory()
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras, on any set of unknown size
        model.fit(dataset, epochs=1, verbose=0, callbacks=[history])
    assert model.optimizer.iterations == len(sizes)
    assert len(history.rows) == len(sizes)


def test_steps_per_epoch_is_exact():
    model = make()
    dataset = tf.data.Dataset.from_tensor_slices(blobs(50)).batch(10).repeat()
    model.fit(dataset, steps_per_epoch=7, epochs=3, verbose=0)
    assert model.optimizer.iterations == 21
    model.fit(blobs(50), batch_size=10, steps_per_epoch=2, epochs=2, verbose=0)
    assert model.optimizer.iterations == 25


def test_every_way_of_execution_gives_the_same_steps():
    """Each way of execution gives the same steps and the same record of them."""
    records = []
    for kwargs in ({}, {"jit_compile": False}, {"run_eagerly": True, "steps_per_execution": 3}):
        model, history = make(), vae_tf.StepHistory()
        model.compile(**kwargs)
        x = blobs(70)
        model.fit(x, batch_size=10, epochs=2, shuffle=False, verbose=0, callbacks=[history])
        records.append(history.columns())
    for record in records[1:]:
        for name in ("step", "loss", "kl_loss", "gradient_norm"):
            np.testing.assert_allclose(record[name], records[0][name], rtol=1e-4)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_steps_whose_norm_is_not_taken_are_the_same_steps(monkeypatch, as_dataset):
    """After the first ones, each execution's last step of either batch size is measured."""
    x, found = blobs(75), []
    source = tf.data.Dataset.from_tensor_slices(x).batch(10) if as_dataset else x
    sizes = {} if as_dataset else {"batch_size": 10}
    for first_steps in (10**9, 0):
        monkeypatch.setattr(execution, "FIRST_STEPS", first_steps)
        model, seen = make(), []
        model.compile(steps_per_execution=4, jit_compile=not as_dataset)
        hook = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, m=model, s=seen: s.append(dict(m.step_terms))
        )
        model.fit(source, epochs=2, shuffle=False, verbose=0, callbacks=[hook], **sizes)
        terms = {name: np.concatenate([row[name] for row in seen]) for name in seen[0]}
        found.append((model.sampling.seed_generator.state.numpy(), *model.get_weights(), terms))
        assert model.measured
        assert model.sampling.drawn is None
    (*weights, terms), (*others, some) = found
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    measured = np.array(2 * [0, 0, 0, 1, 0, 0, 1, 1], bool)
    assert np.isfinite(terms["gradient_norm"]).all()
    np.testing.assert_array_equal(np.isfinite(some["gradient_norm"]), measured)
    for name in terms:
        chosen = measured if name == "gradient_norm" else slice(None)
        np.testing.assert_allclose(terms[name][chosen], some[name][chosen], rtol=1e-4, atol=1e-6)


class TwoDraws(VAE):
    """The mean of two draws' logits, as a subclass may have it."""

    def call(self, x):
        return (super().call(x) + self.decode(self.sampling(self.encode(x)))) / 2


class TwoDrawsOfTheirOwn(TwoDraws):
    def draw_ahead(self, steps, rows):
        return {}


def test_noise_drawn_ahead_is_for_one_call_and_no_other_takes_it():
    with pytest.raises(RuntimeError, match=r"twice in a train step.*draw_ahead"):
        make(TwoDraws).fit(blobs(), verbose=0)
    losses = [
        make(TwoDrawsOfTheirOwn, run_eagerly=eager).fit(blobs(), verbose=0).history["loss"]
        for eager in (False, True)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


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
    model = make(jit_compile=False, hidden_units=())
    history = model.fit(*arguments, batch_size=None, epochs=2, verbose=0, **kwargs).history
    assert np.isfinite(history["loss"]).all()
    assert ("val_loss" in history) == bool(kwargs)
    assert model.image_shape in ((8, 8), (8, 8, 1), (64,))


def test_bytes_and_their_floats_are_the_same_images():
    x = blobs()
    losses = [
        make(jit_compile=False).fit(images, epochs=3, verbose=0).history["loss"]
        for images in (x, x.astype("float32") / 255)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


# Looking at what was learned.


def test_evaluate_is_repeatable_and_leaves_training_alone():
    x = blobs()
    plain, watched = make(jit_compile=False), make(jit_compile=False)
    plain.fit(x, epochs=4, verbose=0)
    watched.fit(x, epochs=2, validation_data=x, verbose=0)
    assert watched.evaluate(x, verbose=0) == watched.evaluate(x, verbose=0)
    watched.fit(x, epochs=2, verbose=0)
    for a, b in zip(plain.trainable_weights, watched.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_generate_is_fixed_by_its_seed():
    model = make()
    model.build((None, 8, 8))
    images = model.generate(6, seed=1)
    np.testing.assert_array_equal(images, model.generate(6, seed=1))
    np.testing.assert_allclose(images[:2], model.generate(2, seed=1), atol=1e-6)
    assert not np.allclose(images, model.generate(6, seed=2))
    assert not np.allclose(model.generate(6), model.generate(6))


def test_interpolate_starts_and_ends_at_the_reconstructions():
    model, x = make(), blobs()
    model.fit(x, epochs=2, verbose=0)
    images = model.interpolate(x[0], x[1], num=5)
    assert images.shape == (5, 8, 8)
    np.testing.assert_allclose(images[[0, -1]], model.reconstruct(x[:2]), atol=1e-5)
    z_mean = np.asarray(model.encode(x[:2])[0])
    middle = model.decode_images(z_mean.mean(0, keepdims=True))
    np.testing.assert_allclose(images[2:3], middle, atol=1e-5)


# What bad input gets.


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"latent_dim": 0}, ValueError, "latent_dim.*positive integer.*latent_dim=0"),
        ({"latent_dim": 2.5}, TypeError, "latent_dim"),
        ({"latent_dim": True}, TypeError, "latent_dim"),
        ({"hidden_units": (512, 0)}, ValueError, "hidden_units"),
        ({"hidden_units": "512"}, TypeError, "hidden_units"),
        ({"hidden_units": (5.5,)}, TypeError, "hidden_units"),
        ({"seed": -1}, ValueError, "seed"),
        ({"activation": "relux"}, ValueError, "relux"),
    ],
)
def test_constructor_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        VAE(**arguments)


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


@pytest.mark.parametrize("case", BAD_DATA)
def test_fit_refuses_before_training(case):
    spoil, error, words = BAD_DATA[case]
    model = make()
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
        getattr(make(), method)(x, verbose=0, **{argument: value})


def test_weights_in_validation_data_are_refused():
    x = blobs()
    with pytest.raises(ValueError, match="sample_weight"):
        make().fit(x, validation_data=(x, x[:, 0, 0], np.ones(len(x))), verbose=0)


@pytest.mark.parametrize("name", ["loss", "metrics"])
def test_compile_refuses_a_second_loss(name):
    with pytest.raises(ValueError, match=name):
        VAE().compile(**{name: "mse"})


def test_images_of_another_shape_are_refused():
    model = make()
    model.fit(blobs(), verbose=0)
    for method in (model.encode, model.reconstruct, model.predict, model.evaluate, model.fit):
        with pytest.raises(ValueError, match=r"\(8, 8\).*\(9, 9\)"):
            method(blobs(shape=(9, 9)))


def test_generate_before_the_first_image_says_what_to_do():
    with pytest.raises(ValueError, match="fit"):
        VAE().generate(3)


def test_labels_must_match_the_images():
    with pytest.raises(ValueError, match="'y'"):
        make().fit(blobs(10), np.zeros(9), verbose=0)


@pytest.mark.slow
def test_two_devices_train_together():
    out = run_python(
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "import numpy as np, vae_tf\n"
        "with tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']).scope():\n"
        "    model, history = vae_tf.VAE(2, (16,), seed=0), vae_tf.StepHistory()\n"
        "    model.compile()\n"
        "    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8)).astype('uint8')\n"
        "    model.fit(x, batch_size=16, epochs=3, verbose=0, callbacks=[history])\n"
        "losses = [row['loss'] for row in history.rows]\n"
        "print(len(losses), np.isfinite(losses).all(), losses[-1] < losses[0])\n"
    )
    assert out.split()[-3:] == ["12", "True", "True"]
