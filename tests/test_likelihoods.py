"""Likelihood layers: what a decoder's output becomes, their own weights, and how Keras keeps them."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common.variables import AutocastScope
from keras.src.testing import TestCase
from scipy import stats

from vae_tf import distributions
from vae_tf.errors import InvalidTypeError, InvalidValueError
from vae_tf.layers import Noise
from vae_tf.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    Likelihood,
    get_likelihood,
)

LATENT, PIXELS = 2, 5
CASES = [
    (Bernoulli, {}),
    (ContinuousBernoulli, {}),
    (Gaussian, {"sigma": 0.3}),
    (Gaussian, {"sigma": None}),
    (Gaussian, {"sigma": "per_pixel"}),
    (DiscretizedLogistic, {}),
]
every_likelihood = pytest.mark.parametrize(("kind", "arguments"), CASES)


def _built(kind, arguments, image_shape=(4, 3)):
    likelihood = kind(**arguments)
    likelihood.build((None, *likelihood.parameter_shape(image_shape)))
    return likelihood


def _parameters(likelihood, image_shape=(4, 3), num=2):
    shape = (num, *likelihood.parameter_shape(image_shape))
    return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


# What all of them do.


@every_likelihood
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # by Keras's test
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning")
def test_keras_tests_of_a_layer(kind, arguments):
    """Its calls, its weights, its configuration, a training step, and mixed precision."""
    image_shape = (4, 3)
    learned = kind is Gaussian and arguments["sigma"] != 0.3
    TestCase().run_layer_test(
        kind,
        arguments,
        input_shape=(2, *kind(**arguments).parameter_shape(image_shape)),
        expected_output_shape=(2, *image_shape),
        expected_output_dtype="float32",
        expected_num_trainable_weights=int(learned),
        expected_num_non_trainable_weights=int(kind is Gaussian and not learned),
        expected_num_seed_generators=0,
        expected_num_losses=0,
        assert_built_after_instantiation=kind is not Gaussian,
        # A layer whose weights the mean does not depend on cannot be trained by the mean.
        run_training_check=not learned,
    )
    TestCase().run_class_serialization_test(kind(**arguments))


@every_likelihood
def test_the_shorthands_are_those_of_the_distribution(kind, arguments):
    likelihood = _built(kind, arguments)
    parameters, noise = _parameters(likelihood), Noise(seed=3)
    law = likelihood.distribution(parameters)
    x = law.sample(noise)
    assert x.shape == (2, 4, 3)
    assert likelihood.support is law.support
    assert law.support.contains(x)
    np.testing.assert_array_equal(likelihood.sample(parameters, Noise(seed=3)), x)
    np.testing.assert_array_equal(likelihood.sample(parameters, 3), x)
    assert not np.array_equal(likelihood.sample(parameters, noise), x)
    assert likelihood.sample(parameters).shape == (2, 4, 3)
    np.testing.assert_array_equal(likelihood.log_prob(parameters, x), law.log_prob(x))
    np.testing.assert_array_equal(likelihood.mean(parameters), law.mean())
    np.testing.assert_array_equal(likelihood(parameters), law.mean())


@every_likelihood
@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_figures_are_float32_whatever_the_policy(kind, arguments, policy):
    """Parameters that half precision cannot hold reach the distribution as they are."""
    precise = _built(kind, arguments)
    half = _built(kind, {**arguments, "dtype": policy})
    assert all(weight.dtype == "float32" for weight in half.weights)
    parameters = _parameters(precise) + 1e-4
    x = precise.sample(parameters, 0)
    model = keras.Sequential([keras.Input(parameters.shape[1:]), half])
    np.testing.assert_array_equal(model(parameters), precise(parameters))
    with AutocastScope("float16"):  # that of a model around it
        assert all(weight.value.dtype == "float32" for weight in half.weights)
        np.testing.assert_array_equal(half.log_prob(parameters, x), precise.log_prob(parameters, x))


@every_likelihood
@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
def test_a_model_that_holds_one_is_saved_and_loaded(kind, arguments, name, tmp_path):
    model = Decoded(kind(**arguments))
    model.build((None, LATENT))
    for weight in model.likelihood.weights:
        weight.assign(weight - 0.7)
    z = np.random.default_rng(0).normal(size=(3, LATENT)).astype("float32")
    if name == "m.keras":
        model.save(tmp_path / name)
        loaded = keras.models.load_model(tmp_path / name, custom_objects={"Decoded": Decoded})
    else:  # Keras loads a model of one's own from .h5 only into one that is built
        save = model.save_weights if name == "m.weights.h5" else model.save
        save(tmp_path / name)
        loaded = Decoded(kind(**arguments))
        loaded.build((None, LATENT))
        loaded.load_weights(tmp_path / name)
    x = model.likelihood.sample(model.decoder(z), 0)
    np.testing.assert_array_equal(loaded(z), model(z))
    np.testing.assert_array_equal(loaded.log_prob(z, x), model.log_prob(z, x))


@every_likelihood
@pytest.mark.filterwarnings("ignore:.*(quantize|quantization):UserWarning")  # Keras's, on Reshape
def test_a_model_that_holds_one_is_quantised(kind, arguments):
    model = Decoded(kind(**arguments))
    model.build((None, LATENT))
    z = np.random.default_rng(0).normal(size=(3, LATENT)).astype("float32")
    before = np.asarray(model(z))
    model.quantize("int8")
    assert any(weight.dtype == "int8" for weight in model.decoder.weights)
    np.testing.assert_allclose(model(z), before, atol=0.05)


class Decoded(keras.Model):
    """A decoder and its likelihood, as an attribute of a model that is not functional."""

    def __init__(self, likelihood, **kwargs):
        super().__init__(**kwargs)
        self.likelihood = get_likelihood(likelihood)
        self.decoder = keras.Sequential(
            [keras.layers.Dense(math.prod(self._shape)), keras.layers.Reshape(self._shape)]
        )

    @property
    def _shape(self):
        return self.likelihood.parameter_shape((4, 3))

    def build(self, input_shape):
        self.decoder.build(input_shape)
        self.likelihood.build((None, *self._shape))

    def call(self, z):
        return self.likelihood(self.decoder(z))

    def log_prob(self, z, x):
        return self.likelihood.log_prob(self.decoder(z), x)

    def get_config(self):
        likelihood = keras.saving.serialize_keras_object(self.likelihood)
        return {**super().get_config(), "likelihood": likelihood}


# Names.


def test_names_and_what_else_is_a_likelihood():
    names = ["bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic"]
    assert list(LIKELIHOODS) == names
    for name in names:
        assert type(get_likelihood(name)) is LIKELIHOODS[name]
    own = Gaussian(0.5)
    assert get_likelihood(own) is own
    saved = keras.saving.serialize_keras_object(own)
    assert get_likelihood(saved).sigma == 0.5


@pytest.mark.parametrize("wrong", ["poisson", None, 3, Bernoulli])
def test_what_is_no_likelihood(wrong):
    with pytest.raises(InvalidValueError, match="'bernoulli', 'continuous_bernoulli'"):
        get_likelihood(wrong)


def test_a_likelihood_of_ones_own():
    """Half the code that a user writes: a distribution and a support; here Laplace's, of scipy."""

    class Law:
        def __init__(self, location):
            self.location = location

        def log_prob(self, x):
            return -tf.reduce_sum(abs(x - self.location) + math.log(2), axis=-1)

        def mean(self):
            return self.location

    class Laplace(Likelihood):
        def distribution(self, parameters):
            return Law(parameters)

    likelihood = get_likelihood(Laplace())
    assert likelihood.built
    parameters, x = np.random.default_rng(0).normal(size=(2, 3, PIXELS)).astype("float32")
    expected = stats.laplace(parameters).logpdf(x).sum(-1)
    np.testing.assert_allclose(likelihood.log_prob(parameters, x), expected, rtol=1e-5)
    np.testing.assert_array_equal(likelihood(parameters), parameters)


# The Gaussian's sigma.


def test_gaussian_log_prob_and_samples_against_scipy():
    mean, x = np.random.default_rng(0).normal(0, 3, (2, 4, 6, 5)).astype("float32")
    expected = stats.norm(mean, 0.3).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(Gaussian(sigma=0.3).log_prob(mean, x), expected, rtol=1e-5)
    samples = Gaussian(sigma=0.3).sample(tf.fill((20000, 1), 2.0), 0).numpy()[:, 0]
    assert stats.kstest(samples, stats.norm(2.0, 0.3).cdf).pvalue > 1e-4


def test_sigma_1_gives_the_squared_error_up_to_a_constant():
    mean, x = np.random.default_rng(0).normal(0, 3, (2, 4, 6, 5)).astype("float32")
    squared = ((x - mean) ** 2).sum((1, 2))
    for likelihood in (Gaussian(sigma=1), Gaussian()):
        rest = likelihood.log_prob(mean, x) + 0.5 * squared
        np.testing.assert_allclose(rest, np.full(4, -15 * math.log(2 * math.pi)), rtol=1e-4)


def test_sigma_per_pixel_against_scipy_and_learned():
    """Its maximum likelihood is each pixel's root mean square error."""
    random = np.random.default_rng(0)
    mean, sigma = np.zeros((500, 3, 2), "float32"), random.uniform(0.2, 2, (3, 2))
    x = (mean + sigma * random.normal(size=mean.shape)).astype("float32")
    likelihood = _built(Gaussian, {"sigma": "per_pixel"}, (3, 2))
    likelihood.log_sigma.assign(np.log(sigma))
    expected = stats.norm(mean, sigma).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(likelihood.log_prob(mean, x), expected, rtol=1e-4)
    optimizer = keras.optimizers.Adam(0.05)
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(likelihood.log_prob(mean, x))
        optimizer.apply(
            tape.gradient(loss, likelihood.trainable_weights), likelihood.trainable_weights
        )
    np.testing.assert_allclose(np.exp(likelihood.log_sigma), np.sqrt((x**2).mean(0)), rtol=1e-3)


def test_sigma_per_pixel_wants_to_know_the_images():
    with pytest.raises(ValueError, match=r"likelihood\.build"):
        Gaussian("per_pixel").mean(np.zeros((2, 3)))


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf, "a", True])
def test_sigma_is_a_positive_number(sigma):
    error = InvalidTypeError if sigma in ("a", True) else InvalidValueError
    with pytest.raises(error, match="sigma"):
        Gaussian(sigma=sigma)


@pytest.mark.slow
def test_a_learned_sigma_is_that_of_probabilistic_pca():
    """Maximum likelihood has σ² = mean of the least D − L eigenvalues (Tipping & Bishop 1999).

    Adam comes within 1 % of that, slowly; the estimate's own error is σ/√(2N(D − L)) = 1.3 %.
    """
    from vae_tf import VAE

    random = np.random.default_rng(0)
    z, noise = random.normal(size=(1000, LATENT)), random.normal(size=(1000, PIXELS))
    x = z @ random.normal(size=(LATENT, PIXELS)) + 0.3 * noise - 2
    least = np.linalg.eigvalsh(np.cov(x.T, bias=True))[: PIXELS - LATENT]
    model = VAE(LATENT, hidden_units=(), likelihood="gaussian", seed=0)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 12000)))
    model.fit(x, epochs=600, batch_size=50, verbose=0)
    sigma = math.exp(float(model.likelihood.log_sigma))
    assert sigma == pytest.approx(math.sqrt(least.mean()), rel=0.01)
    assert sigma == pytest.approx(0.3, rel=0.01 + 3 * 0.013)


# What a distribution is about.


def test_parameter_shapes():
    for name, kind in LIKELIHOODS.items():
        expected = (8, 8, 3, 2) if name == "discretized_logistic" else (8, 8, 3)
        assert kind().parameter_shape([8, 8, 3]) == expected


def test_the_discretized_logistic_takes_the_mean_first_and_then_the_scale():
    parameters = np.float32([[[0.3, -4.0], [0.9, 1.0]]])
    law = distributions.DiscretizedLogistic(parameters[..., 0], parameters[..., 1])
    x = np.float32([[0.2, 1.0]])
    np.testing.assert_allclose(DiscretizedLogistic().log_prob(parameters, x), law.log_prob(x))
