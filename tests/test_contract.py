"""One contract over models of every kind: what works with one of them works with all.

The networks, the classes and the conditions differ; `CASES` has a row for each. Three of the classes
are in `own_models`, as a user would write them.
"""

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Callable

import keras
import numpy as np
import own_models
import pytest
from helpers import REPOSITORY, blobs, run_python
from keras import layers
from small_models import save_run
from training_helpers import Crash, assert_same_state

import vae_tf
from vae_tf import (
    IWAE,
    VAE,
    VQVAE,
    Autoencoder,
    BetaVAE,
    Checkpoints,
    CodePrior,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    HierarchicalVAE,
    Images,
    SparseAutoencoder,
    StepHistory,
    evaluation,
    plots,
)
from vae_tf.engine.checkpoints import checkpoint_paths
from vae_tf.export.verify import verify
from vae_tf.serving import Client
from vae_tf.serving.server import EmbeddedServer

pytestmark = pytest.mark.filterwarnings(
    "ignore:This VQVAE has a prior"
)  # that it has is asked of each

VAE_TERMS = {"loss", "reconstruction_loss", "kl_loss"}


def own_networks(**kwargs):
    """A `VAE` with a user's networks, whose layers act in training as they do not elsewhere."""
    keras.utils.set_random_seed(kwargs["seed"])  # they are made before the model is
    x, z = keras.Input((8, 8, 1)), keras.Input((2,))
    hidden = layers.Dense(16, "relu")(layers.Flatten()(x))
    hidden = layers.Dropout(0.2, seed=5)(layers.BatchNormalization()(hidden))
    code = layers.Dense(4)(hidden)
    encoder = keras.Model(x, [code[:, :2], code[:, 2:]])
    image = layers.Reshape((8, 8, 1))(layers.Dense(64)(z))
    return VAE(2, encoder=encoder, decoder=keras.Model(z, image), **kwargs)


def vqvae_with_prior(**kwargs):
    """A `VQVAE` that has a prior, as an untrained `CodePrior` gives it."""
    model = VQVAE(8, 4, filters=(8,), **kwargs)
    model.build((None, 8, 8, 1))
    prior = CodePrior(model, filters=8, num_layers=2, seed=0)
    prior.build((None, 8, 8, 1))
    model.adopt(prior.network)
    return model


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of model: how to make one, its terms, the images' shape, what it can do."""

    make: Callable
    terms: set
    shape: tuple = (8, 8, 1)
    labels: bool = False
    bound: bool = True  # it has log-weights
    draws: bool = True  # from a prior
    by_dimension: bool = True  # it tells what each dimension of a code carries
    fall: float = 1.0  # nats by which the loss falls at least


CASES = {
    "dense": Case(lambda **kw: VAE(2, (16,), **kw), VAE_TERMS),
    "convolutional": Case(lambda **kw: VAE(2, network="conv", filters=(4, 4), **kw), VAE_TERMS, (16, 16, 1)),
    "own networks": Case(own_networks, VAE_TERMS),
    "conditional": Case(
        lambda **kw: own_models.ConditionalVAE(2, (16,), **kw), VAE_TERMS, labels=True
    ),
    "two layers": Case(own_models.TwoLayerVAE, {"loss"}, by_dimension=False),
    "autoencoder": Case(
        lambda **kw: own_models.Autoencoder(likelihood=vae_tf.Gaussian(sigma=1.0), **kw),
        {"loss"},
        bound=False, draws=False, by_dimension=False,
    ),
    "BetaVAE": Case(lambda **kw: BetaVAE(2, (16,), beta=2.0, **kw), VAE_TERMS, fall=0.2),
    "ConditionalVAE": Case(
        lambda **kw: ConditionalVAE(2, (16,), num_classes=4, learned_prior=True, **kw),
        VAE_TERMS, labels=True, by_dimension=False,
    ),
    "IWAE": Case(lambda **kw: IWAE(2, (16,), num_samples=3, **kw), {*VAE_TERMS, "elbo_loss"}, fall=0.5),
    "HierarchicalVAE": Case(
        lambda **kw: HierarchicalVAE((4, 2), (16,), kl_warmup_steps=8, **kw),
        {*VAE_TERMS, "kl_layer_1", "kl_layer_2"}, by_dimension=False, fall=0.5,
    ),
    "VQVAE": Case(
        vqvae_with_prior, {"loss", "reconstruction_loss", "commitment_loss"},
        bound=False, by_dimension=False,
    ),
    "Autoencoder": Case(
        lambda **kw: Autoencoder(3, (16,), weight_decay=1e-4, **kw),
        {"loss", "reconstruction_loss", "regularization_loss"}, bound=False, draws=False, by_dimension=False,
    ),
    "DenoisingAutoencoder": Case(
        lambda **kw: DenoisingAutoencoder(3, (16,), corruption_level=0.1, **kw),
        {"loss", "reconstruction_loss"}, bound=False, draws=False, by_dimension=False,
    ),
    "SparseAutoencoder": Case(
        lambda **kw: SparseAutoencoder(8, (16,), **kw),
        {"loss", "reconstruction_loss", "code_activity"}, bound=False, draws=False, by_dimension=False,
    ),
    "ContractiveAutoencoder": Case(
        lambda **kw: ContractiveAutoencoder(3, (16,), penalty_weight=0.01, jacobian="projections", **kw),
        {"loss", "reconstruction_loss", "contraction"}, bound=False, draws=False, by_dimension=False,
    ),
}  # fmt: skip


def images(case, num, seed=0):
    """`(x,)`, or `(x, labels)`: in a conditional model's the label says where the bar is."""
    x = (blobs(num, case.shape[:2], seed) > 100)[..., None]
    labels = x.reshape(num, -1).argmax(axis=1) // (case.shape[0] * case.shape[1] // 4)
    return (x, labels) if case.labels else (x,)


def compiled(case, jit_compile=False, seed=0):
    """A model, built; two steps an execution, so that there is an interruption within an epoch."""
    model = case.make(seed=seed)
    model.build((None, *case.shape))
    model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=2, jit_compile=jit_compile)
    return model


def fit(model, case, *callbacks, epochs=8):
    """Four steps an epoch; `(history, record of the steps)`."""
    held, record = images(case, 20, seed=1), StepHistory()
    history = model.fit(
        *images(case, 40),
        batch_size=10,
        epochs=epochs,
        verbose=0,
        validation_data=held if case.labels else held[0],
        callbacks=[record, *callbacks],
    ).history
    return history, record


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model after its training, which the tests that look at it leave as it is."""

    case: Case
    model: keras.Model
    history: dict
    record: StepHistory
    before: dict


SLOW = {
    *("BetaVAE", "IWAE", "VQVAE", "Autoencoder", "SparseAutoencoder", "DenoisingAutoencoder"),
    *("conditional", "two layers", "HierarchicalVAE"),
}  # each has tests of its own, or differs little from one that is not here


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES],
)
def trained(request):
    case = CASES[request.param]
    model = compiled(case)
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}
    return Trained(case, model, *fit(model, case), before)


# Training.


def test_the_loss_falls_and_its_terms_are_in_the_history(trained):
    terms, history = trained.case.terms, trained.history
    assert history["loss"][-1] < history["loss"][0] - trained.case.fall
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert {*terms, *(f"val_{name}" for name in terms), "gradient_norm"} <= set(history)
    columns = trained.record.columns()
    assert {*terms, "gradient_norm", "step"} <= set(columns)
    np.testing.assert_array_equal(columns["step"], np.arange(1, 33))
    assert ("active_units" in history) == trained.case.by_dimension


def test_every_weight_gets_a_gradient(trained):
    assert trained.before
    for weight in trained.model.trainable_weights:
        assert (weight.numpy() != trained.before[weight.path]).any(), weight.path


def test_the_seed_fixes_the_initial_weights(trained):
    for seed in (0, 1):
        twin = compiled(trained.case, seed=seed)
        same = [
            (weight.numpy() == before).all()
            for weight, before in zip(twin.trainable_weights, trained.before.values(), strict=True)
            if np.ptp(before) > 0  # not those that begin at 0 or 1
        ]
        assert same == [seed == 0] * len(same)


def test_interrupted_and_resumed_is_uninterrupted(trained, tmp_path):
    """So the same seed gives the same training too."""
    with pytest.raises(RuntimeError, match="crash"):
        fit(compiled(trained.case), trained.case, Checkpoints(tmp_path, 1), Crash(8))
    newest = checkpoint_paths(tmp_path)[0]
    assert newest.name == "step_0000000006.ckpt"  # in the middle of the second epoch
    resumed = compiled(trained.case)
    history, record = fit(resumed, trained.case, Checkpoints(tmp_path, 1))
    assert_same_state(resumed, trained.model)
    assert history == trained.history
    assert record.rows == trained.record.rows


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_interrupted_and_resumed_is_uninterrupted_in_xla_too(name, tmp_path):
    case, whole = CASES[name], compiled(CASES[name], jit_compile=True)
    fit(whole, case, epochs=3)
    with pytest.raises(RuntimeError, match="crash"):
        fit(compiled(case, jit_compile=True), case, Checkpoints(tmp_path, 1), Crash(8), epochs=3)
    resumed = compiled(case, jit_compile=True)
    fit(resumed, case, Checkpoints(tmp_path, 1), epochs=3)
    assert_same_state(resumed, whole)


# A saved model.

LOOK = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
import numpy as np, own_models, vae_tf, keras
for folder in pathlib.Path(sys.argv[1]).iterdir():
    model = keras.models.load_model(folder / "model.keras")
    given = np.load(folder / "given.npz")
    inputs = [given[name] for name in ("x", "labels") if name in given]
    out = {"evaluated": model.evaluate(*inputs, verbose=0), "code": model.code(*inputs),
           "images": model.reconstruct(*inputs), "steps": model.steps_made}
    if model.sample_prior is not None:
        out["generated"] = model.generate(4, seed=3, condition=None if len(inputs) == 1 else 1)
    model.fit(*inputs, batch_size=10, verbose=0)
    out |= {str(i): weight for i, weight in enumerate(model.get_weights())}
    np.savez(folder / "out.npz", **out)
"""


@pytest.mark.slow
def test_saved_and_loaded_in_a_fresh_process(tmp_path):
    """Each gives the same there, and trains on as the one that was never saved."""
    models = {name: compiled(case) for name, case in CASES.items()}
    for name, model in models.items():
        given = images(CASES[name], 40)
        model.fit(*given, batch_size=10, verbose=0)
        (tmp_path / name).mkdir()
        model.save(tmp_path / name / "model.keras")
        labels = {"labels": given[1]} if CASES[name].labels else {}
        np.savez(tmp_path / name / "given.npz", x=given[0], **labels)
    run_python(LOOK, tmp_path, REPOSITORY / "tests")
    for name, model in models.items():
        assert_is_the_saved(model, CASES[name], np.load(tmp_path / name / "out.npz"))


def assert_is_the_saved(model, case, out):
    given = images(case, 40)
    assert out["steps"] == model.steps_made == 4
    np.testing.assert_allclose(out["evaluated"], model.evaluate(*given, verbose=0), rtol=1e-5)
    np.testing.assert_allclose(out["code"], model.code(*given), atol=1e-5)
    np.testing.assert_allclose(out["images"], model.reconstruct(*given), atol=1e-5)
    assert ("generated" in out) == case.draws
    if case.draws:
        generated = model.generate(4, seed=3, condition=1 if case.labels else None)
        np.testing.assert_allclose(out["generated"], generated, atol=1e-5)
    if case is CASES["own networks"]:
        return  # Keras saves no state of the noise of its Dropout
    model.fit(*given, batch_size=10, verbose=0)
    for index, weight in enumerate(model.get_weights()):
        np.testing.assert_allclose(out[str(index)], weight, rtol=1e-5, atol=1e-6)


# What looks at a model.


def data_set(case):
    parts = {"train": images(case, 40), "test": images(case, 25, seed=1)}
    labels = [part[1] if case.labels else None for part in parts.values()]
    return Images("bars", parts["train"][0], parts["test"][0], *labels)


def test_evaluate(trained, tmp_path):
    """The bound of `evaluate` is that of the model's own `evaluate`, but for the draws."""
    case, model = trained.case, trained.model
    found = evaluation.evaluate(model, data_set(case), num_samples=20 if case.bound else None)
    loss = model.evaluate(*images(case, 25, seed=1), verbose=0, return_dict=True)["loss"]
    metrics = found.metrics["elbo"]
    mean = -metrics["elbo"]["mean"] if case.bound else metrics["loss"]["mean"]
    assert mean == pytest.approx(loss, abs=2 if case.bound else 1e-3)
    assert ("likelihood" in found.metrics) == case.bound
    if case.bound:
        assert found.metrics["likelihood"]["mean"] > metrics["elbo"]["mean"]
    assert ("latent" in found.metrics) == case.by_dimension
    found.write(tmp_path / "report")
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())


def test_plot(trained, tmp_path):
    case, columns = trained.case, trained.record.columns()
    paths = plots.draw(tmp_path, trained.model, data_set(case), columns)
    names = {path.stem for path in paths}
    assert {"reconstruct", "train_process"} <= names
    assert ("generated" in names) == case.draws
    assert all(path.stat().st_size > 1000 for path in paths)


# Export and serving.


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """`(case, model, the versions' directory, a run directory)`."""
    case, model = trained.case, trained.model
    folder = tmp_path_factory.mktemp("exported")
    vae_tf.export_decoder(model, folder / "models", with_encoder=True)
    return case, model, folder / "models", save_run(model, folder / "run")


def test_the_export_is_verified_against_the_run(exported):
    *_, models, run = exported
    verified = verify(models, run)
    assert verified.passed, [check for check in verified.checks if not check.passed]
    assert "equals the run" in {check.name for check in verified.checks}


def test_serve(exported):
    case, model, models, _ = exported
    z = np.random.default_rng(0).normal(size=(3, *model.latent_shape)).astype("float32")
    labels = np.array([0, 1, 3]) if case.labels else None
    given = {"label": labels} if case.labels else {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(models, rest_port=0, grpc_port=0))
        client = stack.enter_context(Client(f"http://{server.rest_address}"))
        decoded = client.decode(z, **given)
        drawn = client.generate(3, seed=4, **given) if case.draws else None
    np.testing.assert_allclose(decoded, model.decode_images(z, labels), atol=1e-6)
    if case.draws:
        np.testing.assert_allclose(drawn, model.generate(3, 4, labels), atol=1e-6)


# What it costs to write one.


@pytest.mark.parametrize("name", ["ConditionalVAE", "TwoLayerVAE", "Autoencoder"])
def test_a_model_is_few_lines(name):
    lines = inspect.getsource(getattr(own_models, name)).splitlines()
    assert len([line for line in lines if line.strip()]) <= 30
