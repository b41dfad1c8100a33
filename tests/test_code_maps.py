"""What is measured and drawn of discrete codes, and how they are drawn from a prior."""

import math

import keras
import numpy as np
import pytest
from helpers import blobs

from vae_tf import VAE, VQVAE, CodePrior, Images, autoregressive, evaluation, plots
from vae_tf.plots.tiles import GAP


@pytest.fixture(scope="module")
def model():
    """A VQVAE with a prior whose weights are drawn, so that it tells codes apart."""
    vqvae = VQVAE(8, 4, filters=(8,), seed=0)
    vqvae.compile()
    vqvae.fit(blobs(100)[..., None] > 100, batch_size=20, epochs=5, verbose=0)
    prior = CodePrior(vqvae, filters=6, num_layers=3, seed=0)
    prior.build((None, 8, 8, 1))
    random = np.random.default_rng(0)
    for weight in prior.network.weights:
        weight.assign(random.normal(size=weight.shape) * 0.5)
    vqvae.adopt(prior.network)
    return vqvae


@pytest.fixture(scope="module")
def images():
    return Images("bars", *(blobs(num, seed=num)[..., None] > 100 for num in (60, 30)))


def test_draws_are_those_of_the_whole_network_place_after_place(model):
    """By the inverse of the distribution function, on the logits of all of the network."""
    u = np.random.default_rng(1).uniform(size=(5, 4, 4)).astype("float32")
    codes = np.zeros((5, 4, 4), "int32")
    for row, column in np.ndindex(4, 4):
        logits = np.array(model.code_prior(codes), "float64")[:, row, column]
        shares = np.cumsum(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), axis=-1)
        codes[:, row, column] = (shares < u[:, row, column, None]).sum(axis=-1)
    assert len(np.unique(codes)) > 3
    np.testing.assert_array_equal(autoregressive.draw_codes(model.code_prior, u), codes)


def test_the_frequency_of_drawn_maps_is_their_probability():
    """Two places and three codes: nine maps, whose p(k) sums to one."""
    network = autoregressive.code_prior_network((1, 2), 3, 4, 2, seed=0)
    random = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign(random.normal(size=weight.shape))
    every = np.stack(np.meshgrid(range(3), range(3), indexing="ij"), -1).reshape(9, 1, 2)
    p = np.exp(autoregressive.log_prob(network, every.astype("int32")))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    drawn = autoregressive.draw_codes(
        network, random.uniform(size=(20_000, 1, 2)).astype("float32")
    )
    counts = np.bincount(np.array(drawn)[:, 0] @ [3, 1], minlength=9)
    np.testing.assert_allclose(counts / 20_000, p, atol=4 * math.sqrt(0.25 / 20_000))


def test_many_draws_come_in_parts_that_change_nothing(model, monkeypatch):
    whole = model.generate(7, seed=2)
    monkeypatch.setattr("vae_tf.models.array_calls.ROWS", 3)
    np.testing.assert_allclose(model.generate(7, seed=2), whole, atol=1e-6)


def test_the_report_has_the_use_of_the_codes_and_their_bits(model, images):
    found = evaluation.evaluate(model, images, measures=["codes", "reconstruction"])
    codes = model.codes(images.x_test)
    shares = np.unique(codes, return_counts=True)[1] / codes.size
    metrics = found.metrics["codes"]
    assert metrics["perplexity"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
    assert metrics["used"] == len(shares)
    assert metrics["num_codes"] == 8
    logits = np.array(model.code_prior(codes), "float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    bits = -np.take_along_axis(log_p, codes[..., None], -1).mean() / np.log(2)
    assert metrics["bits_per_code"]["mean"] == pytest.approx(bits, rel=1e-5)
    errors = found.metrics["reconstruction"]
    assert errors["mse_over_variance"]["mean"] == pytest.approx(
        errors["mse"]["mean"] / images.x_train.astype(float).var(), rel=1e-6
    )


def test_a_measure_of_codes_is_refused_where_there_are_none_and_bits_without_a_prior(images):
    vae = VAE(2, (4,), seed=0)
    vae.build((None, 8, 8, 1))
    with pytest.raises(ValueError, match=r"'measures'.*discrete codes.*VAE"):
        evaluation.evaluate(vae, images, measures=["codes"])
    vqvae = VQVAE(8, 4, filters=(8,), seed=0)
    vqvae.build((None, 8, 8, 1))
    found = evaluation.evaluate(vqvae, images, measures=["codes"])
    assert "bits_per_code" not in found.metrics["codes"]
    assert "no prior over its codes" in found.sections[1].text


def test_the_pictures_are_of_maps(model, images):
    figures = plots.figures(model, images.x_test)
    assert set(figures) == {"reconstruct", "generated", "code_maps", "code_usage"}
    (axes, *_) = figures["code_maps"].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "original",
        "codes",
        "reconstruction",
    ]
    heights = [bar.get_height() for bar in figures["code_usage"].axes[0].patches]
    assert sum(heights) == pytest.approx(100)
    assert heights == sorted(heights, reverse=True)


def test_codes_that_are_alike_have_colours_that_are():
    """A square of pixels for each code; the same code has one colour."""
    codes = np.array([[[0, 1], [2, 0]]])
    embeddings = np.array([[0.0, 0, 0, 0], [0.1, 0, 0, 0], [9, 3, 5, 1]])
    figure = plots.code_maps(np.zeros((1, 4, 4, 1)), codes, np.ones((1, 4, 4, 1)), embeddings)
    pixels = figure.axes[0].images[0].get_array()[4 + GAP : 8 + GAP, :4]  # below the original
    assert pixels.shape == (4, 4, 3)
    for code in range(3):
        rows, columns = np.nonzero(np.kron(codes[0] == code, np.ones((2, 2))))
        assert np.ptp(pixels[rows, columns], axis=0).max() == 0
    assert not np.array_equal(pixels[0, 0], pixels[2, 0])


def test_a_prior_is_shown_by_name_while_it_trains(capsys):
    from vae_tf.training.progress import Progress

    vqvae = VQVAE(4, 2, filters=(4,), seed=0)
    vqvae.build((None, 8, 8, 1))
    prior = CodePrior(vqvae, filters=4, num_layers=1, seed=0)
    prior.compile(keras.optimizers.Adam(0.01))
    prior.fit(
        blobs(20)[..., None], batch_size=10, verbose=0, callbacks=[Progress(2, 10, name="prior")]
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "prior: Compiling the training loop ..."
    assert lines[-1].startswith("prior: step 2/2  loss ")
