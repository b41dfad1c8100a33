"""Figures, by what they show: the arrays, points, colours and labels of matplotlib's artists."""

import numpy as np
import pytest
from helpers import blobs
from keras import ops
from PIL import Image
from scipy.stats import norm
from sklearn.decomposition import PCA
from small_models import Autoencoder, TwoLayers

from vae_tf import Condition, plots
from vae_tf.data import Images
from vae_tf.distributions import Normal
from vae_tf.models.vae import VAE
from vae_tf.plots import pictures


def noise(num, *shape, seed=0):
    return np.random.default_rng(seed).random((num, *shape))


def shown(figure):
    """The array that a figure of one image shows, drawn as it is, the first row on top."""
    (image,) = figure.axes[0].images
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "gray"
    assert image.get_interpolation() == "nearest"
    assert image.origin == "upper"
    assert figure.axes[0].yaxis_inverted()
    return np.asarray(image.get_array())


def tiles(grid, height, width):
    """Cut a grid at its gaps of one pixel: `(rows, columns, height, width, ...)`."""
    return np.array(
        [
            [grid[y : y + height, x : x + width] for x in range(0, grid.shape[1], width + 1)]
            for y in range(0, grid.shape[0], height + 1)
        ]
    )


# Grids.


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3)])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_tiles_are_in_their_places(shape, as_bytes):
    images = noise(5, *shape)
    if as_bytes:
        images = np.rint(images * 255).astype(np.uint8)
    grid = plots.image_grid(images, columns=2)
    colour = shape[2:] == (3,)
    assert grid.shape == (3 * 3 + 2, 2 * 4 + 1, *([3] if colour else []))
    expected = (images / 255 if as_bytes else images).reshape(5, 3, 4, *([3] if colour else []))
    np.testing.assert_allclose(grid[0:3, 0:4], expected[0])
    np.testing.assert_allclose(grid[0:3, 5:9], expected[1])
    np.testing.assert_allclose(grid[4:7, 0:4], expected[2])
    np.testing.assert_allclose(grid[4:7, 5:9], expected[3])
    np.testing.assert_allclose(grid[8:11, 0:4], expected[4])
    for rest in (grid[8:11, 5:9], grid[3], grid[7], grid[:, 4]):  # no image, and the gaps
        assert (rest == 0.5).all()


@pytest.mark.parametrize(("num", "rows", "columns"), [(1, 1, 1), (5, 2, 3), (9, 3, 3), (10, 3, 4)])
def test_a_grid_is_about_square(num, rows, columns):
    assert plots.image_grid(np.zeros((num, 3, 4))).shape == (4 * rows - 1, 5 * columns - 1)


def test_flat_images_are_rows_and_transparency_is_left_out():
    np.testing.assert_array_equal(plots.image_grid(noise(1, 6)), noise(1, 6))
    np.testing.assert_array_equal(
        plots.image_grid(noise(1, 2, 2, 4)), noise(1, 2, 2, 4)[0, ..., :3]
    )


def test_reconstructions_stand_in_the_even_columns():
    originals = np.rint(255 * noise(100, 4, 4, 1)).astype(np.uint8)
    reconstructions = noise(100, 4, 4, 1, seed=1)
    figure = plots.reconstruct(originals, reconstructions)
    found = tiles(shown(figure), 4, 4)
    assert found.shape[:2] == (10, 20)  # 200 tiles
    np.testing.assert_allclose(found[:, 0::2].reshape(100, 4, 4, 1), reconstructions)
    np.testing.assert_allclose(found[:, 1::2].reshape(100, 4, 4, 1), originals / 255)
    title = figure.axes[0].get_title()
    assert "100 test images" in title
    assert "even columns (from 0) reconstructed, odd columns real" in title


@pytest.mark.parametrize("channels", [(), (3,)])
def test_generated_images_are_shown_row_by_row(channels):
    images = noise(16, 4, 5, *channels)
    figure = plots.generated(images, "sixteen")
    found = tiles(shown(figure), 4, 5)
    assert found.shape[:2] == (4, 4)
    np.testing.assert_array_equal(found.reshape(images.shape), images)
    assert figure.axes[0].get_title() == "sixteen"
    assert not figure.axes[0].axison


# Training.


def history(num=12):
    """What `runs.load_history` gives, each column with values of its own."""
    random = np.random.default_rng(0)
    names = ("loss", "reconstruction_loss", "kl_loss", "val_loss")
    columns = {name: random.uniform(1, 50, num) for name in names}
    columns["val_loss"][np.arange(num) % 3 != 2] = np.nan
    return {"step": np.arange(1.0, num + 1) ** 2, "beta": np.linspace(0.1, 1, num), **columns}


def test_the_training_process_shows_the_history():
    record = history()
    figure = plots.train_process(record)
    upper, lower, beta = figure.axes
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 3
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    assert len(lines) == sum(len(axes.get_lines()) for axes in figure.axes) == 5
    tested = np.arange(12) % 3 == 2
    for label, axes, name, rows in (
        ("total (−ELBO)", upper, "loss", slice(None)),
        ("reconstruction", upper, "reconstruction_loss", slice(None)),
        ("total, test set", upper, "val_loss", tested),
        ("KL", lower, "kl_loss", slice(None)),
        ("weight β of the KL (right)", beta, "beta", slice(None)),
    ):
        assert lines[label].axes is axes
        np.testing.assert_array_equal(lines[label].get_xdata(), record["step"][rows])
        np.testing.assert_array_equal(lines[label].get_ydata(), record[name][rows])
    assert lines["total, test set"].get_marker() == "o"
    assert lines["total, test set"].get_linestyle() == "None"
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    legends = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert sorted(legends) == sorted(lines)
    assert beta.yaxis.get_label_position() == "right"
    assert beta.get_ylim() == (0, 1.05)
    assert [axes.get_ylabel() for axes in (upper, lower)] == ["nats per image"] * 2
    assert lower.get_xlabel() == "step"


@pytest.mark.parametrize("num", [0, 1])  # interrupted before the first step; one step alone
def test_the_shortest_histories_can_be_drawn(num, tmp_path):
    plots.train_process(history(num)).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_the_training_process_shows_the_terms_that_a_model_has():
    """Without reconstruction, KL and β: the loss above, every other term below."""
    record = history()
    record = {"step": record["step"], "loss": -record["loss"], "commitment_loss": record["kl_loss"]}
    record |= {"gradient_norm": record["step"], "epoch": record["step"]}
    upper, lower = plots.train_process(record).axes
    assert upper.get_yscale() == "linear"  # a density's loss may be negative
    shown = [[line.get_label() for line in axes.get_lines()] for axes in (upper, lower)]
    assert shown == [["loss"], ["commitment"]]
    np.testing.assert_array_equal(lower.get_lines()[0].get_ydata(), record["commitment_loss"])
    (axes,) = plots.train_process({"step": record["step"], "loss": record["loss"]}).axes
    assert axes.get_xlabel() == "step"


def test_a_weight_above_one_is_in_sight():
    *_, beta = plots.train_process(history() | {"beta": np.linspace(0, 4, 12)}).axes
    assert beta.get_ylim()[1] > 4


# The latent space.


def test_quantiles_are_those_of_the_normal():
    for side in (1, 2, 20):
        masses = (np.arange(side) + 0.5) / side
        np.testing.assert_allclose(plots.prior_quantiles(side), norm.ppf(masses), atol=1e-12)


def paint(z):
    """A fake decoder: Φ(z₀) in red, Φ(z₁) in green, on 6×4 pixels."""
    z = np.asarray(z)
    colours = np.stack([norm.cdf(z[:, 0]), norm.cdf(z[:, 1]), np.zeros(len(z))], -1)
    return np.broadcast_to(colours[:, None, None], (len(z), 6, 4, 3))


def test_the_plane_is_decoded_at_the_quantiles_of_the_prior():
    asked = []
    figure = plots.top_infer(lambda z: asked.append(z) or paint(z))
    (z,) = asked
    quantiles = norm.ppf((np.arange(20) + 0.5) / 20)
    assert z.shape == (400, 2)
    expected = {(a, b) for a in np.float32(quantiles) for b in np.float32(quantiles)}
    assert set(map(tuple, np.asarray(z))) == expected
    found = tiles(shown(figure), 6, 4)
    assert found.shape[:2] == (20, 20)
    masses = (np.arange(20) + 0.5) / 20
    for pixel in (found[..., 0, 0, :], found[..., -1, -1, :]):
        np.testing.assert_allclose(pixel[..., 0], np.tile(masses, (20, 1)), atol=1e-6)  # right
        np.testing.assert_allclose(pixel[..., 1], np.tile(masses[::-1, None], 20), atol=1e-6)  # up


@pytest.mark.parametrize("side", [1, 3, 20])
def test_the_plane_is_labelled_with_the_codes_that_are_there(side):
    figure = plots.top_infer(paint, side)
    grid, axes = shown(figure), figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_0$", "$z_1$")
    for axis, channel, line in (
        (axes.xaxis, 0, lambda at: grid[0, round(at)]),
        (axes.yaxis, 1, lambda at: grid[round(at), 0]),
    ):
        assert len(axis.get_ticklocs()) == min(5, side)
        for at, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True):
            value = float(label.get_text().replace("−", "-"))
            assert value == pytest.approx(norm.ppf(line(at)[channel]), abs=0.006)


@pytest.mark.parametrize("num", [2, 10, 15, 30])
def test_codes_are_coloured_by_label(num):
    z = noise(20 * num, 2)
    labels = np.random.default_rng(1).permutation(np.arange(20 * num) % num)
    figure = plots.top_label(z, labels, "codes")
    axes = figure.axes[0]
    assert len(axes.collections) == num
    colours = {tuple(np.unique(c.get_facecolors(), axis=0).ravel()) for c in axes.collections}
    assert len(colours) == num
    assert {len(colour) for colour in colours} == {4}  # one RGBA for all points of a label
    for points in axes.collections:
        np.testing.assert_array_equal(points.get_offsets(), z[labels == int(points.get_label())])
    legend = axes.get_legend()
    assert {text.get_text() for text in legend.get_texts()} == set(map(str, range(num)))
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        points = axes.collections[[c.get_label() for c in axes.collections].index(text.get_text())]
        np.testing.assert_array_equal(handle.get_facecolors()[0], points.get_facecolors()[0])
    assert axes.get_aspect() == 1
    assert axes.get_title() == "codes"


def test_codes_without_labels():
    z = noise(30, 2)
    (axes,) = plots.top_label(z).axes
    (points,) = axes.collections
    np.testing.assert_array_equal(points.get_offsets(), z)
    assert axes.get_legend() is None


def test_the_projection_is_that_of_a_principal_component_analysis():
    random = np.random.default_rng(0)
    spread = np.diag([5.0, 0.1, 3.0, 1.0, 0.5]) @ np.linalg.qr(random.normal(size=(5, 5)))[0]
    z = random.normal(size=(200, 5)) @ spread + 7
    found, expected = plots.project(z), PCA(2).fit_transform(z)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-9)


def test_one_code_alone_is_projected_to_the_origin():
    np.testing.assert_allclose(plots.project(np.array([[3.0, -2.0, 1.0]])), [[0, 0]], atol=1e-12)


def test_a_traversal_moves_one_dimension_a_row():
    asked, start = [], np.array([0.3, -0.2, 0.1])

    def bars(z):
        """One column of pixels for each dimension, of the brightness (z + 3) / 6."""
        asked.append(np.asarray(z))
        return np.repeat((z[:, None] + 3) / 6, 4, axis=1)

    figure = plots.traversal(bars, start, columns=7, extent=1.5)
    assert asked[0].shape == (21, 3)
    codes = 6 * tiles(shown(figure), 4, 3)[:, :, 0] - 3
    values = np.linspace(-1.5, 1.5, 7)
    for row in range(3):
        expected = np.tile(start, (7, 1))
        expected[:, row] = values
        np.testing.assert_allclose(codes[row], expected, atol=1e-6)
    axes = figure.axes[0]
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == ["$z_{0}$", "$z_{1}$", "$z_{2}$"]
    assert [int(at // 5) for at in axes.get_yticks()] == [0, 1, 2]  # tiles of 4 pixels and a gap
    assert [int(at // 4) for at in axes.get_xticks()] == [0, 3, 6]
    columns = [float(text.get_text().replace("−", "-")) for text in axes.get_xticklabels()]
    assert columns == [-1.5, 0, 1.5]


# A run's pictures.


def run_images(num):
    x = blobs(num)[..., None]
    return Images("blobs", x, x, np.arange(num) % 3, np.arange(num) % 3)


def model(latent_dim):
    vae = VAE(latent_dim, hidden_units=(8,), seed=0)
    vae.build((None, 8, 8, 1))
    return vae


ALWAYS = {"reconstruct.png", "generated.png", "train_process.png"}


@pytest.mark.parametrize(
    ("latent_dim", "names"),
    [
        (1, {"traversal.png"}),
        (2, {"top_infer.png", "top_label.png"}),
        (3, {"traversal.png", "encodings.png"}),
    ],
)
def test_the_pictures_of_a_run(tmp_path, latent_dim, names):
    paths = plots.draw(tmp_path, model(latent_dim), run_images(12), history())
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS | names
    assert sorted(paths) == sorted(tmp_path.iterdir())
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert len(np.unique(np.asarray(picture))) > 2


def test_the_fewest_images_can_be_drawn(tmp_path):
    assert len(plots.draw(tmp_path, model(3), run_images(1), history(1))) == 5


def test_the_pictures_show_the_model_and_the_test_images(tmp_path, monkeypatch):
    """What `draw` hands to each figure, in place of the files."""
    vae, images, record = model(2), run_images(120), history()
    handed = {}
    for name in (*(name[:-4] for name in ALWAYS), "top_infer", "top_label"):
        monkeypatch.setattr(pictures, name, recorder(handed, name))
    plots.draw(tmp_path, vae, images, record, seed=3)
    originals, reconstructions = handed["reconstruct"]
    assert len({image.tobytes() for image in originals}) == 100
    assert {i.tobytes() for i in originals} <= {i.tobytes() for i in images.x_test}
    np.testing.assert_allclose(reconstructions, vae.reconstruct(originals), rtol=1e-6)
    np.testing.assert_array_equal(handed["generated"][0], vae.generate(100, seed=3))
    assert handed["train_process"][0] is record
    z = noise(4, 2)
    np.testing.assert_array_equal(handed["top_infer"][0](z), vae.decode_images(z))
    np.testing.assert_allclose(handed["top_label"][0], vae.encode(images.x_test)[0], rtol=1e-6)
    np.testing.assert_array_equal(handed["top_label"][1], images.y_test)
    first = originals
    plots.draw(tmp_path, vae, images, record, seed=3)
    np.testing.assert_array_equal(handed["reconstruct"][0], first)
    plots.draw(tmp_path, vae, images, record, seed=4)
    assert not np.array_equal(handed["reconstruct"][0], first)


def recorder(handed, name):
    """A figure function that keeps its arguments and draws nothing."""

    class Nothing:
        def savefig(self, *args, **kwargs):
            pass

    def record(*args):
        handed[name] = args
        return Nothing()

    return record


# Models of other kinds.


class Spatial(Autoencoder):
    """A code that is a grid of vectors, as a VQ-VAE's."""

    latent_shape = (1, 1, 3)

    def encode(self, x):
        return ops.reshape(super().encode(x), (-1, 1, 1, 3))

    def decode(self, z):
        return super().decode(ops.reshape(z, (-1, 3)))


class Unsaid(VAE):
    def regularizer(self, z_mean, z_log_var):
        return ops.square(z_mean) + 0 * z_log_var


class Shifted(VAE):
    """p(z) = N(5, I)."""

    def prior(self):
        return Normal(ops.full((1, 2), 5.0), ops.zeros((1, 2)))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Autoencoder, {"reconstruct", "encodings"}),
        (Spatial, {"reconstruct"}),
        (lambda: VAE(2, hidden_units=()), {"reconstruct", "generated", "top_infer", "top_label"}),
        (lambda: Shifted(2, hidden_units=()), {"reconstruct", "generated", "top_label"}),
        (lambda: Unsaid(2, hidden_units=()), {"reconstruct", "top_label"}),
        (lambda: Unsaid(3, hidden_units=()), {"reconstruct", "encodings"}),
        (TwoLayers, {"reconstruct", "generated", "traversal", "encodings"}),
    ],
)
def test_a_model_has_the_pictures_that_it_has_what_it_takes_for(make, names):
    model, images = make(), run_images(12)
    model.build((None, 8, 8, 1))
    assert plots.figures(model, images.x_test, images.y_test).keys() == names


class Named(VAE):
    """An image is as bright as its label, whatever the code."""

    condition = Condition("label", num_classes=3)

    def decode(self, z, label):
        logits = 4.0 * (ops.cast(label, "float32") - 1)
        return ops.reshape(logits, (-1, 1, 1, 1)) + ops.zeros((1, 8, 8, 1))


def test_the_pictures_of_a_conditional_model_have_the_labels_of_the_test_images():
    model, images = Named(2, hidden_units=()), run_images(12)
    model.build((None, 8, 8, 1))
    figures = plots.figures(model, images.x_test, images.y_test, only=("generated", "reconstruct"))
    expected = np.repeat([[0.018, 0.5, 0.982]], 34, axis=0).ravel()[:100]  # labels 0, 1, 2, 0, ...
    generated = tiles(shown(figures["generated"]), 8, 8).reshape(100, -1)
    np.testing.assert_allclose(generated.mean(1), np.resize(expected[:12], 100), atol=1e-3)
    pairs = tiles(shown(figures["reconstruct"]), 8, 8).reshape(-1, 64)[:24]
    np.testing.assert_allclose(pairs[0::2].mean(1), expected[:12], atol=1e-3)
    assert plots.figures(model, images.x_test, images.y_test).keys() >= {"top_infer", "top_label"}


def test_what_is_outside_of_an_images_range_is_black_or_white():
    grid = plots.image_grid(np.array([[[[-0.5, 1.5, 0.25]]]]))
    np.testing.assert_array_equal(grid, [[[0, 1, 0.25]]])
