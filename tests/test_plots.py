"""Figures, by what they show: the arrays, points, colours and labels of matplotlib's artists."""

import numpy as np
import pytest
from helpers import blobs
from keras import ops
from PIL import Image
from plot_helpers import noise, rendered, shown, tiles
from small_models import Autoencoder, TwoLayers

from vae_tf import Condition, plots
from vae_tf.data import Images
from vae_tf.distributions import Normal
from vae_tf.models.vae import VAE
from vae_tf.plots import pictures

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


@pytest.mark.parametrize(("num", "rows", "columns"), [(1, 1, 1), (5, 3, 2), (9, 3, 3), (13, 4, 4)])
def test_a_grid_is_about_square(num, rows, columns):
    assert plots.image_grid(np.zeros((num, 3, 4))).shape == (4 * rows - 1, 5 * columns - 1)


def test_vectors_are_strips_and_transparency_is_left_out():
    np.testing.assert_array_equal(
        plots.image_grid(noise(1, 16)), np.repeat(noise(1, 16), 2, axis=0)
    )
    np.testing.assert_array_equal(
        plots.image_grid(noise(1, 2, 2, 4)), noise(1, 2, 2, 4)[0, ..., :3]
    )


def test_each_original_stands_above_its_reconstruction_in_rows_that_say_so():
    originals = np.rint(255 * noise(17, 4, 4, 1)).astype(np.uint8)
    reconstructions = noise(17, 4, 4, 1, seed=1)
    figure = plots.reconstruct(originals, reconstructions, columns=7)
    assert len(figure.axes) == 3  # 7, 7 and 3 pairs
    places = zip(figure.axes, (0, 7, 14), strict=True)
    for axes, first in places:
        above, below = tiles(shown(axes), 4, 4)
        rows = slice(first, first + 7)
        np.testing.assert_allclose(above, originals[rows, ..., 0] / 255)
        np.testing.assert_allclose(below, reconstructions[rows, ..., 0])
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == ["original", "reconstruction"]
        assert [int(at // 5) for at in axes.get_yticks()] == [0, 1]  # tiles of 4 and a gap
        assert axes.get_xlim() == (-0.5, 33.5)  # the last is as large as the others
    assert "17 images" in figure.get_suptitle()


def test_the_labels_of_the_rows_are_in_the_picture():
    """They were cut at the edge: drawn in full, the outermost columns of pixels are white."""
    for num, shape in ((100, (28, 28)), (30, (32, 32, 3)), (12, (64,))):
        figure = plots.reconstruct(noise(num, *shape), noise(num, *shape))
        assert (rendered(figure)[:, :2] == 255).all()


def test_the_original_arrangement_has_reconstructions_in_the_even_columns():
    originals = np.rint(255 * noise(100, 4, 4, 1)).astype(np.uint8)
    reconstructions = noise(100, 4, 4, 1, seed=1)
    figure = plots.reconstruct(originals, reconstructions, arrangement="columns")
    found = tiles(shown(figure.axes[0]), 4, 4)
    assert found.shape[:2] == (10, 20)  # 200 tiles
    np.testing.assert_allclose(found[:, 0::2].reshape(100, 4, 4, 1), reconstructions)
    np.testing.assert_allclose(found[:, 1::2].reshape(100, 4, 4, 1), originals / 255)
    title = figure.axes[0].get_title()
    assert "100 images" in title
    assert "even columns (from 0) reconstructed, odd columns real" in title
    with pytest.raises(ValueError, match=r"'arrangement'.*'rows' or 'columns'.*'pairs'"):
        plots.reconstruct(originals, reconstructions, arrangement="pairs")


def test_the_extremes_of_the_likelihood():
    images, log_probs = noise(6, 4, 5), np.array([3.0, -1, 5, 0, 9, 2])
    figure = plots.extremes(images, log_probs, count=2)
    (least, most) = tiles(shown(figure.axes[0]), 4, 5)
    np.testing.assert_array_equal(least, images[[1, 3]])
    np.testing.assert_array_equal(most, images[[4, 2]])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["least likely", "most likely"]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_generated_images_are_shown_row_by_row(channels):
    images = noise(16, 4, 5, *channels)
    figure = plots.generated(images, "sixteen")
    found = tiles(shown(figure.axes[0]), 4, 5)
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
        ("total, held-out images", upper, "val_loss", tested),
        ("KL", lower, "kl_loss", slice(None)),
        ("weight β (right)", beta, "beta", slice(None)),
    ):
        assert lines[label].axes is axes
        np.testing.assert_array_equal(lines[label].get_xdata(), record["step"][rows])
        np.testing.assert_array_equal(lines[label].get_ydata(), record[name][rows])
    assert lines["total, held-out images"].get_marker() == "o"
    assert lines["total, held-out images"].get_linestyle() == "None"
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    legends = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert sorted(legends) == sorted(lines)
    assert beta.yaxis.get_label_position() == "right"
    assert beta.get_ylim() == (0, 1.05)
    assert [axes.get_ylabel() for axes in (upper, lower)] == ["nats per image"] * 2
    assert lower.get_xlabel() == "step"


def spiky(height):
    """A KL that is `height` at step 5 for a moment, and between 10 and 20 afterwards; 2,000 steps."""
    steps = np.unique(np.geomspace(1, 2000, 300).round())
    kl = 15 + 5 * np.sin(steps)
    kl[steps == 5] = height
    held_out = np.where(np.arange(len(steps)) % 20 == 9, 24.0, np.nan)
    return {"step": steps, "loss": kl + 100, "kl_loss": kl, "val_loss": 100 + held_out}


def test_a_spike_does_not_set_the_scale_and_is_said_in_figures():
    upper, lower = plots.train_process(spiky(500)).axes
    assert 20 < lower.get_ylim()[1] < 30
    assert lower.get_ylim()[0] < 10
    (line,) = lower.get_lines()
    assert line.get_ydata().max() == 500  # nothing is left out of the line itself
    assert [text.get_text() for text in lower.get_legend().get_texts()] == [
        "KL\n(up to 500, at step 5)"
    ]
    assert 124 < upper.get_ylim()[1] < 150  # above the held-out images' loss
    assert "total (−ELBO)\n(up to 600, at step 5)" in [
        line.get_label() for line in upper.get_lines()
    ]


def test_without_a_spike_the_scale_has_everything():
    for record in (spiky(25), history()):
        for axes in plots.train_process(record).axes:
            values = np.concatenate([line.get_ydata() for line in axes.get_lines()])
            assert axes.get_ylim()[1] >= np.nanmax(values)
            assert axes.get_ylim()[0] <= np.nanmin(values)


def test_legends_stand_beside_the_curves_and_held_out_points_above_the_lines():
    figure = plots.train_process(history())
    rendered(figure)
    for axes in figure.axes[:2]:
        assert axes.get_legend().get_window_extent().x0 > axes.get_window_extent().x1
        assert axes.get_legend().get_window_extent().x1 <= figure.bbox.x1
    *lines, points = figure.axes[0].get_lines()
    assert points.get_zorder() > max(line.get_zorder() for line in lines)
    assert points.get_color() not in {line.get_color() for line in lines}


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
        (2, {"latent_plane.png", "encodings.png"}),
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
    for name in (*(name[:-4] for name in ALWAYS), "latent_plane", "encodings"):
        monkeypatch.setattr(pictures, name, recorder(handed, name))
    plots.draw(tmp_path, vae, images, record, seed=3)
    originals, reconstructions = handed["reconstruct"]
    assert len({image.tobytes() for image in originals}) == 100
    assert {i.tobytes() for i in originals} <= {i.tobytes() for i in images.x_test}
    np.testing.assert_allclose(reconstructions, vae.reconstruct(originals), rtol=1e-6)
    np.testing.assert_array_equal(handed["generated"][0], vae.generate(100, seed=3))
    assert handed["train_process"][0] is record
    z = noise(4, 2)
    np.testing.assert_array_equal(handed["latent_plane"][0](z), vae.decode_images(z))
    np.testing.assert_allclose(handed["encodings"][0], vae.encode(images.x_test)[0], rtol=1e-6)
    np.testing.assert_array_equal(handed["encodings"][1], images.y_test)
    first = originals
    plots.draw(tmp_path, vae, images, record, seed=3)
    np.testing.assert_array_equal(handed["reconstruct"][0], first)
    plots.draw(tmp_path, vae, images, record, seed=4)
    assert not np.array_equal(handed["reconstruct"][0], first)


def recorder(handed, name):
    """A figure function that keeps its arguments and draws nothing."""

    class Nothing:
        def savefig(self, path, **kwargs):
            path.touch()

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
        (
            lambda: VAE(2, hidden_units=()),
            {"reconstruct", "generated", "latent_plane", "encodings"},
        ),
        (lambda: Shifted(2, hidden_units=()), {"reconstruct", "generated", "encodings"}),
        (lambda: Unsaid(2, hidden_units=()), {"reconstruct", "encodings"}),
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
    generated = tiles(shown(figures["generated"].axes[0]), 8, 8).reshape(100, -1)
    np.testing.assert_allclose(generated.mean(1), np.resize(expected[:12], 100), atol=1e-3)
    rows = [tiles(shown(axes), 8, 8)[1] for axes in figures["reconstruct"].axes]
    means = np.concatenate(rows).mean((1, 2))
    np.testing.assert_allclose(means, expected[:12], atol=1e-3)
    assert plots.figures(model, images.x_test, images.y_test).keys() >= {
        "latent_plane",
        "encodings",
    }


def test_what_is_outside_of_an_images_range_is_black_or_white():
    grid = plots.image_grid(np.array([[[[-0.5, 1.5, 0.25]]]]))
    np.testing.assert_array_equal(grid, [[[0, 1, 0.25]]])


def test_matplotlib_has_nothing_to_say_of_a_gaussian_in_colour(caplog):
    """It logs "Clipping input data" where it is given what is outside of [0, 1]."""
    model = VAE(2, hidden_units=(), likelihood="gaussian", seed=0)
    model.build((None, 6, 5, 3))
    model.decoder.set_weights([20 * weight for weight in model.decoder.get_weights()])
    assert np.ptp(model.generate(50, seed=0)) > 2
    for figure in plots.figures(model, noise(12, 6, 5, 3).astype("float32")).values():
        rendered(figure)
    assert [record.getMessage() for record in caplog.records] == []


def test_large_images_are_fewer_in_a_picture():
    x = np.zeros((30, 1200, 1200, 3), "uint8")
    scene = pictures.Scene(None, x)
    assert 1 <= len(scene.picked) <= 4
    assert len(pictures.Scene(None, x[:, ::40, ::40]).picked) == 30
