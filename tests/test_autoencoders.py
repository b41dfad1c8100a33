"""The autoencoders against PCA, NumPy, finite differences and hand-made numbers."""

import keras
import numpy as np
import pytest
from helpers import blobs
from keras import ops

from vae_tf import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
    StepHistory,
)
from vae_tf.models.sparse import sparsity_kl

SQUARED = {"error": "squared_error"}


def built(model, shape=(8, 8)):
    model.build((None, *shape))
    return model


# Undercomplete.


def test_a_linear_one_finds_the_subspace_of_pca():
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3)) * [1.5, 1, 0.7] @ random.normal(size=(3, 12)) + 0.3
    x = (x + 0.1 * random.normal(size=x.shape)).astype("float32")
    model = Autoencoder(3, (), seed=0, **SQUARED)
    rate = keras.optimizers.schedules.CosineDecay(0.1, 4000)
    model.compile(keras.optimizers.Adam(rate), steps_per_execution=100)
    model.fit(np.tile(x, (250, 1)), epochs=4, batch_size=100, verbose=0)
    mean = x.mean(axis=0)
    _, values, components = np.linalg.svd(x - mean, full_matrices=False)
    least = (values[3:] ** 2).sum() / len(x)  # what PCA's best three components leave
    error = ((model.reconstruct(x) - x) ** 2).sum(axis=1).mean()
    assert least <= error < 1.005 * least
    spanned = np.linalg.qr(model.decoder.get_layer("logits").kernel.numpy().T)[0]
    cosines = np.linalg.svd(components[:3] @ spanned, compute_uv=False)
    assert np.degrees(np.arccos(np.clip(cosines, 0, 1))).max() < 1  # the principal angles


@pytest.mark.parametrize("error", ["cross_entropy", "squared_error"])
def test_the_loss_is_the_error_of_its_reconstructions(error):
    model, x = built(Autoencoder(3, (16,), error=error, seed=0)), blobs(20, (8, 8))
    model.compile()
    pixels, again = x / 255, model.reconstruct(x).astype("float64")
    if error == "cross_entropy":
        right = -(pixels * np.log(again) + (1 - pixels) * np.log1p(-again))
    else:
        right = (pixels - again) ** 2
    loss = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(right.sum(axis=(1, 2)).mean(), rel=1e-5)


def test_weight_decay_is_of_the_kernels_alone():
    model = built(Autoencoder(3, (16,), weight_decay=0.4, seed=0))
    model.compile()
    kernels = [w.numpy() for w in model.trainable_weights if w.name == "kernel"]
    assert len(kernels) == 4
    found = model.evaluate(blobs(10, (8, 8)), verbose=0, return_dict=True)
    right = 0.2 * sum((kernel**2).sum() for kernel in kernels)
    assert found["regularization_loss"] == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 3), (30,)])
def test_images_of_other_shapes(shape):
    x = np.random.default_rng(0).random((20, *shape)).astype("float32")
    model = Autoencoder(4, (16,), code_activation="tanh", seed=0, **SQUARED)
    model.compile()
    model.fit(x, verbose=0)
    assert model.reconstruct(x).shape == x.shape
    assert abs(model.code(x)).max() < 1


def test_a_convolutional_one_and_own_networks():
    x = blobs(20, (16, 16))
    conv = Autoencoder(4, network="conv", filters=(4, 8), seed=0)
    conv.compile()
    conv.fit(x, verbose=0)
    assert conv.code(x).shape == (20, 4)
    encoder = keras.Sequential(
        [keras.Input((16, 16)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    own = built(Autoencoder(3, encoder=encoder, seed=0), (16, 16))
    np.testing.assert_allclose(own.code(x), encoder(x / np.float32(255)), atol=1e-5)
    with pytest.raises(ValueError, match=r"rows of shape \(4,\)"):
        built(Autoencoder(4, encoder=encoder), (16, 16))


# Denoising.


def test_images_are_corrupted_in_training_alone():
    model, x = (
        built(DenoisingAutoencoder(3, (16,), corruption_level=1.0, seed=0)),
        blobs(20, (8, 8)),
    )
    floats = ops.convert_to_tensor(x / np.float32(255))
    blank = model.reconstruction_error(model.decode(model.encode(0 * floats)), floats)
    clean = model.reconstruction_error(model.decode(model.encode(floats)), floats)
    np.testing.assert_allclose(model.terms(floats, training=True)["loss"], blank, rtol=1e-5)
    np.testing.assert_allclose(model.terms(floats)["loss"], clean, rtol=1e-5)
    assert abs(clean - blank).numpy().max() > 0.1


def test_every_step_has_another_corruption_and_the_seed_fixes_them():
    def losses(seed):
        model, record = (
            DenoisingAutoencoder(3, (16,), corruption_level=0.5, seed=seed),
            StepHistory(),
        )
        model.compile(keras.optimizers.SGD(0.0))
        model.fit(
            np.repeat(blobs(1, (8, 8)), 20, axis=0), batch_size=5, callbacks=[record], verbose=0
        )
        return record.columns()["loss"]

    one, again, other = losses(0), losses(0), losses(1)
    assert len(set(one)) == len(one) == 4
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()


def test_it_learns_to_bring_masked_pixels_back():
    x = np.repeat(blobs(4, (8, 8)), 25, axis=0)
    model = DenoisingAutoencoder(8, (32,), corruption_level=0.5, seed=0)
    model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=50)
    model.fit(np.tile(x, (30, 1, 1)), batch_size=20, verbose=0)
    masked = x * (np.random.default_rng(0).random(x.shape) > 0.5)
    before, after = (
        ((images / 255 - x / 255) ** 2).mean()
        for images in (masked, 255 * model.reconstruct(masked))
    )
    assert after < before / 5


# Sparse.


@pytest.mark.parametrize(
    ("activity", "kl"), [(0.866, 1.1359), (0.096, 0.0488), (0.11, 0.0345), (0.5, 0.1927)]
)
def test_the_kl_penalty_has_the_known_values(activity, kl):
    by_scipy = pytest.importorskip("scipy.stats").entropy([0.2, 0.8], [activity, 1 - activity])
    found = float(sparsity_kl(0.2, activity))
    assert found == pytest.approx(by_scipy, rel=1e-5)
    assert found == pytest.approx(kl, abs=5e-4)  # worked by hand, and rounded on the way


@pytest.mark.parametrize("penalty", ["kl", "l1"])
def test_the_penalty_is_of_the_codes_of_the_batch(penalty):
    options = {"penalty_weight": 0.7, "seed": 0} | ({"sparsity": 0.1} if penalty == "kl" else {})
    model, x = built(SparseAutoencoder(6, (), penalty=penalty, **options)), blobs(20, (8, 8))
    terms = model.terms(ops.convert_to_tensor(x / np.float32(255)))
    found = float(model.objective({name: ops.mean(term, axis=0) for name, term in terms.items()}))
    activity = model.code(x).astype("float64").mean(axis=0)
    right = activity
    if penalty == "kl":
        right = 0.1 * np.log(0.1 / activity) + 0.9 * np.log(0.9 / (1 - activity))
    assert found == pytest.approx(float(np.mean(terms["loss"])) + 0.7 * right.sum(), rel=1e-5)


def test_codes_become_as_active_as_was_asked():
    x = blobs(200, (8, 8))
    model = SparseAutoencoder(20, (), penalty_weight=20.0, sparsity=0.1, seed=0)
    model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=80)
    model.fit(np.tile(x, (60, 1, 1)), batch_size=50, verbose=0)
    assert model.code(x).mean(axis=0) == pytest.approx(0.1, abs=0.03)


def test_a_code_outside_0_and_1_has_no_kl():
    for activation in ("relu", "linear", "tanh"):
        with pytest.raises(ValueError, match="between 0 and 1 for the KL penalty"):
            SparseAutoencoder(6, (), code_activation=activation)
    encoder = keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(6)])
    model = SparseAutoencoder(6, encoder=encoder, seed=0)
    model.compile()
    with pytest.raises(ValueError, match=r"'encoder'.*activations from -"):
        model.fit(blobs(20, (8, 8)), verbose=0)
    assert model.steps_made == 0


# Contractive.


def jacobians_by_differences(model, x):
    """∂h/∂x of each image, `(N, dim, pixels)`, by central differences."""
    pixels, step = x.reshape(len(x), -1), 0.02
    moved = np.eye(pixels.shape[1], dtype="float32") * step
    ends = [
        np.stack([model.encode((row + sign * moved).reshape(-1, *x.shape[1:])) for row in pixels])
        for sign in (1, -1)
    ]
    return np.swapaxes(ends[0] - ends[1], 1, 2) / (2 * step)


@pytest.mark.parametrize("hidden_units", [(), (9,)])
def test_exact_and_closed_form_and_projections_agree(hidden_units):
    x = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3, 3)).astype("float32")
    options = {"hidden_units": hidden_units, "activation": "tanh", "seed": 0}
    models = {
        how: built(
            ContractiveAutoencoder(5, jacobian=how, num_projections=20_000, **options), (3, 3)
        )
        for how in ("auto", "exact", "projections")
    }
    right = (jacobians_by_differences(models["exact"], x) ** 2).sum(axis=(1, 2))
    tensor = ops.convert_to_tensor(x)
    found = {how: model.contraction(tensor, model.encode(tensor)) for how, model in models.items()}
    np.testing.assert_allclose(found["exact"], right, rtol=2e-3)
    np.testing.assert_allclose(found["auto"], found["exact"], rtol=1e-5)
    np.testing.assert_allclose(found["projections"], found["exact"], rtol=0.05)
    assert (models["auto"]._one_sigmoid_layer is not None) == (hidden_units == ())


def test_the_penalty_is_in_the_loss_and_shrinks_the_slopes():
    x = blobs(100, (8, 8))

    def trained(weight):
        model = ContractiveAutoencoder(6, (), penalty_weight=weight, seed=0)
        model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=40)
        model.fit(np.tile(x, (20, 1, 1)), batch_size=50, verbose=0)
        return model.evaluate(x, verbose=0, return_dict=True)

    free, held = trained(0.0), trained(5.0)
    assert held["loss"] == pytest.approx(
        held["reconstruction_loss"] + 5 * held["contraction"], rel=1e-5
    )
    assert held["contraction"] < free["contraction"] / 2


# Wrong input.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Autoencoder(0), "latent_dim"),
        (lambda: Autoencoder(error="mse"), "'error'"),
        (lambda: Autoencoder(likelihood="gaussian"), "an autoencoder has an error"),
        (lambda: Autoencoder(weight_decay=-1), "weight_decay"),
        (lambda: Autoencoder(binarize=True, **SQUARED), "binarize"),
        (lambda: DenoisingAutoencoder(corruption="rain"), "'masking'"),
        (lambda: DenoisingAutoencoder(corruption_level=1.5), "from 0 to 1"),
        (lambda: SparseAutoencoder(penalty="l2"), "penalty"),
        (lambda: SparseAutoencoder(sparsity=1.0), "sparsity"),
        (lambda: ContractiveAutoencoder(jacobian="some"), "jacobian"),
        (lambda: ContractiveAutoencoder(num_projections=0), "num_projections"),
        (
            lambda: built(ContractiveAutoencoder(3, (9,), jacobian="closed_form")),
            "the encoder is not one sigmoid layer",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_what_needs_a_prior_or_a_likelihood_refuses():
    model = built(Autoencoder(3, (16,), seed=0))
    with pytest.raises(TypeError, match="`sample_prior`, for `generate`"):
        model.generate(3)
    assert model.log_weights is model.prior is model.posterior is None
