"""Rates and distortions against closed forms, and PNG and WebP against their own files."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from compress_helpers import SHAPE, binary, linear_vae
from PIL import Image

from vae_tf import VQVAE
from vae_tf.applications.image_formats import is_picture, stored
from vae_tf.applications.rates import BITS, Point, rate_distortion
from vae_tf.applications.sources import Source
from vae_tf.plots import rates


def identity(dim):
    """A source whose code is the image, a vector."""

    def call(signature, columns):
        if signature == "encode":
            return {"z": np.asarray(columns["images"][:])}
        return {"probabilities": columns["z"]}

    engine = SimpleNamespace(
        name="identity", model=None, image_shape=(dim,), latent_shape=(dim,), condition=None,
        signatures=("encode", "decode"), says_condition=True, call=call, outputs=lambda _: {"z"},
    )  # fmt: skip
    return Source(engine)


def uniform(num, dim, seed=0):
    return np.random.default_rng(seed).random((num, dim)).astype("float32")


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_uniform_code_takes_its_bits_and_loses_a_twelfth_of_a_step_squared(bits):
    (point,) = rate_distortion(identity(3), uniform(5000, 3), uniform(200_000, 3, seed=1), bits)
    assert point.name == f"code, {bits} bit{'s' * (bits > 1)}"
    assert point.rate == pytest.approx(bits, rel=0.005)
    assert point.mse == pytest.approx(4.0**-bits / 12, rel=0.05)
    assert point.psnr == pytest.approx(10 * np.log10(12 * 4.0**bits), abs=0.2)


def test_the_rate_is_of_the_frequencies_in_training():
    training = np.repeat([[0.0], [1.0]], [30, 10], axis=0).astype("float32")
    x = np.array([[0.0], [1.0], [1.0]], "float32")
    (point,) = rate_distortion(identity(1), x, training, 1)
    p = np.array([31, 11, 11]) / 42  # one is added to each
    assert point.rate == pytest.approx(-np.log2(p).mean(), rel=1e-6)
    assert point.mse == pytest.approx(0.25**2)


def test_a_dimension_that_never_moves_costs_next_to_nothing():
    still = np.zeros((1000, 2), "float32")
    (point,) = rate_distortion(identity(2), still[:5], still, 8)
    assert point.rate == pytest.approx(np.log2(1256 / 1001), rel=1e-6)
    assert point.mse == 0


def test_codes_beyond_those_of_training_are_at_the_end_of_their_range():
    training = np.linspace(0, 1, 1001, dtype="float32")[:, None]
    (point,) = rate_distortion(identity(1), np.array([[3.0]], "float32"), training, 1)
    assert point.mse == pytest.approx(2.25**2)  # 0.75 is the last step's middle


def test_the_kl_and_the_elbo_of_a_vae():
    model, x = linear_vae(), binary(400)
    done = []
    points = rate_distortion(model, x, binary(50), progress=lambda *now: done.append(now))
    found = {point.name: point for point in points}
    mean, log_var = (np.float64(a) for a in model.encode(x))
    kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1).mean()
    assert found["KL"].rate == pytest.approx(kl / np.log(2) / 16, rel=1e-5)
    # The mean over q(z|x), by 200 draws.
    epsilon = np.random.default_rng(0).normal(size=(200, *mean.shape))
    z = (mean + np.exp(log_var / 2) * epsilon).reshape(-1, 2).astype("float32")
    p = model.decode_images(z).reshape(200, *x.shape)
    assert found["KL"].mse == pytest.approx(np.square(p - x).mean(), rel=0.05)
    nats = -np.log(np.where(x, p, 1 - p)).sum(axis=(2, 3, 4)).mean() + kl
    assert found["−ELBO, lossless"].rate == pytest.approx(nats / np.log(2) / 16, rel=0.02)
    assert found["−ELBO, lossless"].psnr == math.inf
    assert done[-1] == (len(points), len(points))
    assert {f"code, {b} bits" for b in BITS[1:]} < found.keys()


def test_of_grey_images_there_is_no_lossless_rate_of_a_bernoulli():
    x = np.random.default_rng(0).random((20, *SHAPE)).astype("float32")
    kinds = {point.kind for point in rate_distortion(linear_vae(), x, x)}
    assert kinds == {"code", "KL", "PNG", "WebP"}


def test_codes_without_a_prior_take_log2_k_each():
    model = VQVAE(num_embeddings=8, embedding_dim=2, filters=(4,), residual_blocks=0, seed=0)
    model.build((None, *SHAPE))
    first = rate_distortion(model, binary(3), binary(3))[0]
    assert first.name == "codes, log₂ 8"
    assert first.rate == pytest.approx(4 * 3 / 16)  # a map of 2×2 codes, 3 bits each


def test_a_model_with_a_condition_and_one_without_encoder_are_refused():
    source = identity(2)
    source._engine.signatures = ("decode",)
    with pytest.raises(TypeError, match="with-encoder"):
        rate_distortion(source, uniform(2, 2), uniform(2, 2))
    source.condition = SimpleNamespace(name="label")
    with pytest.raises(ValueError, match="'label'"):
        rate_distortion(source, uniform(2, 2), uniform(2, 2))


@pytest.mark.parametrize("bits", [0, 17, [4, 1.5]])
def test_bits_are_whole_numbers_that_make_sense(bits):
    with pytest.raises((ValueError, TypeError), match="'bits'"):
        rate_distortion(identity(2), uniform(2, 2), uniform(2, 2), bits)


# PNG and WebP.


def noise(num, *shape):
    return np.random.default_rng(0).integers(0, 256, (num, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5, 1), (6, 4, 3)])
@pytest.mark.parametrize("per_file", [1, None, 4])
@pytest.mark.parametrize("kind", ["PNG", "WebP"])
def test_lossless_files_give_the_images_back(shape, per_file, kind):
    images = noise(11, *shape)
    size, restored = stored(images, kind, {"lossless": True}, per_file)
    np.testing.assert_array_equal(restored, images)
    assert size > images.size / 3


def test_the_size_is_that_of_the_files():
    images, size = noise(3, 9, 9), 0
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        size += len(buffer.getvalue())
    assert stored(images, "PNG", {}, per_file=1)[0] == size


def test_binary_images_are_stored_as_a_bit_a_pixel():
    x = np.random.default_rng(0).random((100, 32, 32, 1)) < 0.5
    size, restored = stored(x, "PNG", {})
    np.testing.assert_array_equal(restored == 255, x)
    assert size < 1.1 * x.size / 8


def test_a_lower_quality_is_smaller_and_worse():
    x = np.add.outer(np.arange(32), np.arange(32)).astype("uint8")[None] * 4
    points = [stored(x, "WebP", {"quality": quality}) for quality in (10, 90)]
    errors = [np.square(restored - x.astype(float)).mean() for _, restored in points]
    assert points[0][0] < points[1][0]
    assert errors[0] > errors[1]


def test_what_no_picture_holds_is_left_out():
    assert is_picture(noise(2, 4, 4))
    assert not is_picture(noise(2, 4))
    assert not is_picture(noise(2, 4, 4, 2))
    assert not is_picture(np.full((2, 4, 4), -0.5))


# Pictures.


def points():
    images = np.zeros((3, 4, 4, 1))
    lossy = [Point("code", f"{b} bits", b / 2, 0.1 / b, images) for b in (4, 1, 2)]
    return [*lossy, Point("WebP", "quality 0, each", 9.0, 0.2, images), Point("PNG", "all", 3, 0.0)]


def test_the_curve_has_what_loses_something_and_lines_where_nothing_is_lost():
    (axes,) = rates.rate_distortion(points()).axes
    code, webp, png = axes.get_lines()
    np.testing.assert_allclose(code.get_xdata(), [0.5, 1, 2])
    np.testing.assert_allclose(code.get_ydata(), [10, 10 + 10 * np.log10(2), 10 + 20 * np.log10(2)])
    assert webp.get_label() == "WebP, each"
    assert set(png.get_xdata()) == {3}


def test_the_strip_goes_from_the_lowest_rate_to_the_highest():
    figure = rates.at_rates(np.ones((5, 4, 4, 1)), points())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["images", *(f"{b / 2:.3g} bits: code, {b} bits" for b in (1, 2, 4))]
