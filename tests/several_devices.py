"""Compares training on several devices with training on one; started by test_devices.py.

A process of its own, since TensorFlow divides a CPU into logical ones only when it begins. Prints
what differs, a line for each case. Each case gives its figures for a scope to work in.
"""

import contextlib
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 4)

from helpers import blobs  # noqa: E402
from small_models import Labelled, TwoLayers  # noqa: E402

import vae_tf  # noqa: E402

X = blobs(41, (8, 8, 1))  # batches of 20: the last has one image, and other devices have none
LABELS = np.arange(41) % 4
BATCHES = tf.data.Dataset.from_tensor_slices(X).batch(20)


def strategy(num):
    # TensorFlow's default way of adding up can hang on more logical CPUs than there are cores
    devices = [f"CPU:{index}" for index in range(num)]
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def sgd():
    return keras.optimizers.SGD(2**-7, global_clipnorm=2.0)


def adam():
    return keras.optimizers.Adam(1e-2)


def make(scope, kind=vae_tf.VAE, optimizer=sgd, run_eagerly=False, **kwargs):
    keras.utils.set_random_seed(0)
    with scope():
        sizes = {"latent_dim": 3, "hidden_units": (16,)} if issubclass(kind, vae_tf.VAE) else {}
        model = kind(seed=0, **sizes, **kwargs)
        model.compile(optimizer(), run_eagerly=run_eagerly, jit_compile=False)
    return model


def figures(model, history, *records):
    columns = {name: column for record in records for name, column in record.columns().items()}
    return [*model.get_weights(), *history.values(), *columns.values()]


def trained(model, x=X, fit_scope=contextlib.nullcontext, **kwargs):
    steps = vae_tf.StepHistory()
    arrays = {"batch_size": 20} if isinstance(x, np.ndarray) else {}
    with fit_scope():
        kwargs = {"epochs": 2, "verbose": 0, "callbacks": [steps], **arrays, **kwargs}
        history = model.fit(x, **kwargs).history
    return figures(model, history, steps)


# One device and several, in the scope of the strategy and outside.


def arrays_outside(scope):
    return trained(make(scope, binarize=True), validation_data=X)


def arrays_inside(scope):
    model = make(scope, binarize=True)
    return trained(model, validation_data=X, fit_scope=scope)


def arrays(scope):
    return trained(make(scope, optimizer=adam), epochs=1)


def a_set(scope):
    return trained(make(scope, optimizer=adam), BATCHES, validation_data=BATCHES)


def resumed(scope):
    """Begun on one device; the model to compare with is never interrupted."""

    class Crash(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("crash")

    def fit(scope, *hooks):
        model, steps = make(scope, optimizer=adam), vae_tf.StepHistory()
        hooks = [steps, vae_tf.Checkpoints(folder, every_steps=1), *hooks]
        history = model.fit(X, batch_size=20, epochs=3, verbose=0, callbacks=hooks).history
        return figures(model, history, steps)

    with tempfile.TemporaryDirectory() as folder:
        if scope is not contextlib.nullcontext:
            with contextlib.suppress(RuntimeError):
                fit(contextlib.nullcontext, Crash())
        return fit(scope)


def steps_per_epoch(scope):
    return trained(make(scope), steps_per_epoch=5, validation_split=0.2)


def a_set_without_end(scope):
    return trained(make(scope), BATCHES.repeat(), steps_per_epoch=4)


def a_keras_set(scope):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return (X[20 * index : 20 * index + 20],)

    return trained(make(scope), Batches())


def a_condition(scope):
    model = make(scope, Labelled)
    whole = tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(20)
    return trained(model, y=LABELS) + trained(model, whole, validation_data=(X, LABELS))


def a_model_of_ones_own(scope):
    keras.utils.set_random_seed(1)
    return trained(make(scope, TwoLayers), validation_data=X)


def an_iwae(scope):
    model = make(scope, vae_tf.IWAE, num_samples=3, doubly_reparameterized=True)
    return trained(model, validation_data=X)


def a_hierarchy(scope):
    options = {"latent_dims": (3, 2), "hidden_units": (8,), "kl_warmup_steps": 4}
    return trained(make(scope, vae_tf.HierarchicalVAE, **options), validation_data=X)


def a_codebook(scope):
    """The vectors of all devices move it, and codes that few are near to are revived by one of them."""
    options = {"num_embeddings": 64, "embedding_dim": 4, "filters": (4,), "decay": 0.5}
    x = X[:40]  # TensorFlow's convolutions fail on a device without an image
    model = make(scope, vae_tf.VQVAE, **options)
    found = trained(model, x, validation_data=x)
    with scope():
        prior = vae_tf.CodePrior(model, filters=4, num_layers=2, seed=0)
        prior.compile(sgd(), jit_compile=False)
    return found + trained(prior, x, validation_data=x) + [model.generate(3, seed=0)]


def a_metric_of_train_step(scope):
    class Brightness(vae_tf.VAE):
        def train_step(self, batch):
            logs = super().train_step(batch)
            return {**logs, "brightness": tf.reduce_mean(self.to_floats(batch[0]))}

    model = make(scope, Brightness)
    found = trained(model, X[:40])
    assert model.history.history["brightness"][0] > 0
    return found


def weight_decay(scope):
    decay = keras.regularizers.L2(0.1)
    with scope():
        x, dense = keras.Input((8, 8, 1)), []
        for seed in (0, 1):
            kernel = {"kernel_initializer": keras.initializers.GlorotUniform(seed)}
            dense.append(keras.layers.Dense(3, kernel_regularizer=decay, **kernel))
        flat = keras.layers.Flatten()(x)
        encoder = keras.Model(x, [layer(flat) for layer in dense])
    model = make(scope, encoder=encoder)
    found = trained(model, validation_data=X)
    assert model.history.history["regularization_loss"][0] > 0
    return found


def eagerly(scope):
    return trained(make(scope, run_eagerly=True), epochs=1)


def other_calls(scope):
    model = make(scope)
    logs = [*model.train_on_batch(X), *model.test_on_batch(X[:21])]
    found = [model.predict(X, verbose=0), model.predict(BATCHES, verbose=0)]
    found += [model.evaluate(X, batch_size=batch, verbose=0) for batch in (20, 7)]
    return [
        *model.get_weights(),
        logs,
        *found,
        model.predict_on_batch(X),
        model.generate(3, seed=0),
    ]


CASES = {
    # a data set of TensorFlow's is spread over four devices slowly where there are two cores
    "main": [(2, arrays_outside), (2, a_set), (2, resumed), (4, arrays)],
    "all": [
        (count, case)
        for count in (2, 4)
        for case in (
            arrays_outside, arrays_inside, steps_per_epoch, a_set_without_end, a_keras_set, a_condition,
            a_model_of_ones_own, an_iwae, a_hierarchy, a_codebook, a_metric_of_train_step, weight_decay, eagerly, other_calls, a_set,
        )
    ],
}  # fmt: skip


for num, case in CASES[sys.argv[1]]:
    one, several = case(contextlib.nullcontext), case(strategy(num).scope)
    apart = [np.abs(np.subtract(a, b)) / (1 + np.abs(a)) for a, b in zip(one, several, strict=True)]
    print(case.__name__, num, max(float(np.nanmax(values)) for values in apart))
