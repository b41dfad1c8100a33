"""Tools that wrap or watch `keras.Model.fit`: MLflow, KerasTuner, TensorBoard."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import blobs, run_python
from training_helpers import Recorder, small_vae

X = blobs(60)

MLFLOW = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a third of what an endless set took
os.environ |= {"MLFLOW_TRACKING_URI": sys.argv[1] + "/runs", "MLFLOW_ALLOW_FILE_STORE": "true"}
import mlflow, mlflow.tensorflow
import keras, tensorflow as tf
from sklearn.datasets import load_digits
import vae_tf

x = (load_digits().images[:1437] * 15.9375).astype("uint8")
with_model = sys.argv[2] == "True"
mlflow.tensorflow.autolog(log_models=with_model)
begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = []
for data, kwargs in (
    (x, {}),
    (x, {"batch_size": 30, "shuffle": False, "steps_per_epoch": 60, "validation_split": 0.2}),
    (tf.data.Dataset.from_tensor_slices(x).batch(50), {}),
):
    vae = vae_tf.VAE(2, (16,), seed=0, binarize=True)
    vae.compile(jit_compile=with_model)
    with mlflow.start_run() as started:
        history = vae.fit(data, epochs=2, verbose=0, **kwargs).history
    run = mlflow.get_run(started.info.run_id)
    profiles = [json.loads(each.dataset.profile) for each in run.inputs.dataset_inputs]
    found.append([run.data.params, run.data.metrics, history, profiles, vae.steps_made])
if with_model:
    logged = mlflow.search_logged_models(output_format="list")
    loaded = [mlflow.tensorflow.load_model(each.model_uri).generate(3, seed=0) for each in logged]
    assert len(loaded) == 3 and any((each == vae.generate(3, seed=0)).all() for each in loaded)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("RESULT", json.dumps([found, (peak - begun) / 2**20]))
"""


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.slow
def test_mlflow_records_what_the_user_gave_in_little_memory(with_model, tmp_path):
    """Its autolog reads what reaches Keras's `fit` to the end, and records it."""
    pytest.importorskip("mlflow.tensorflow")
    printed = run_python(MLFLOW, tmp_path, with_model, cwd=tmp_path)
    found, gigabytes = json.loads(printed.partition("RESULT")[2])
    assert gigabytes < 1.5  # some 0.3 here, most of it the compiler's
    given = [("100", "True", "None", 15), ("30", "False", "60", 60), ("50", "False", "None", 29)]
    for (params, metrics, history, profiles, steps), expected in zip(found, given, strict=True):
        names = ("batch_size", "shuffle", "steps_per_epoch")
        assert (*(params[name] for name in names), steps // 2) == expected
        assert params["epochs"] == "2"
        for name in ("loss", "kl_loss", "beta", "active_units"):
            assert metrics[name] == pytest.approx(history[name][-1], rel=1e-6)
        assert len(profiles) == 1 + ("val_loss" in history)
    assert found[0][3] == [{"features_cardinality": 1437 * 64}]


@pytest.mark.slow  # to import
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what KerasTuner imports
def test_keras_tuner_finds_the_better_of_two_learning_rates(tmp_path, capsys):
    tuner_module = pytest.importorskip("keras_tuner")

    def build(choices):
        rate = choices.Choice("rate", [1e-9, 1e-2])
        return small_vae(optimizer=keras.optimizers.Adam(rate), run_eagerly=True)

    tuner = tuner_module.GridSearch(build, "val_loss", directory=tmp_path, project_name="search")
    tuner.search(X, batch_size=10, epochs=3, validation_data=X, verbose=0)
    assert tuner.get_best_hyperparameters()[0].get("rate") == 1e-2
    assert len(tuner.oracle.trials) == 2
    best = small_vae(run_eagerly=True)
    best.build((None, 8, 8))
    with pytest.warns(UserWarning, match="optimizer"):  # Keras's: of another number of variables
        best.load_weights(next(tmp_path.glob("search/trial_0001/*.weights.h5")), skip_mismatch=True)
    assert best.evaluate(X, verbose=0)[0] == pytest.approx(
        tuner.oracle.get_best_trials()[0].score, rel=1e-5
    )


@pytest.mark.slow
def test_tensorboard_has_the_epochs_the_executions_and_the_weights(tmp_path):
    """Its batch figures are the running means at the end of each execution, here of two steps."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model, recorder = small_vae(jit_compile=False, steps_per_execution=2), Recorder()
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=1)
    history = model.fit(
        X, batch_size=10, epochs=2, verbose=0, callbacks=[board, recorder], validation_data=X
    ).history

    def scalars(folder, name):
        found = events.EventAccumulator(str(tmp_path / folder), size_guidance={"tensors": 0})
        found.Reload()
        names = [name for name in found.Tags()["tensors"] if "histogram" in name]
        values = [tf.make_ndarray(each.tensor_proto) for each in found.Tensors(name)]
        return np.ravel(values), names

    for name in ("loss", "kl_loss", "beta", "active_units"):
        epochs, weights = scalars("train", f"epoch_{name}")
        np.testing.assert_allclose(epochs, history[name], rtol=1e-6)
    assert any("z_mean_and_log_var" in name for name in weights)
    validation, _ = scalars("validation", "epoch_loss")
    np.testing.assert_allclose(validation, history["val_loss"], rtol=1e-6)
    batches, _ = scalars("train", "batch_loss")
    steps = recorder.columns()["loss"].reshape(2, 3, 2)  # epochs, executions, steps
    expected = np.cumsum(steps.mean(2), axis=1) / [1, 2, 3]
    np.testing.assert_allclose(batches, expected.ravel(), rtol=1e-5)
