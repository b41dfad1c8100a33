"""Figures of the latent space: what they show, and how its dimensions are called."""

import warnings

import numpy as np
import pytest
from plot_helpers import noise, rendered, shown, tiles
from scipy.stats import norm
from sklearn.decomposition import PCA

from vae_tf import VAE, plots
from vae_tf.distributions import gaussian_kl
from vae_tf.plots.pictures import Scene


def test_quantiles_are_those_of_the_normal():
    for side in (1, 2, 20):
        masses = (np.arange(side) + 0.5) / side
        np.testing.assert_allclose(plots.prior_quantiles(side), norm.ppf(masses), atol=1e-12)


def paint(z):
    """A fake decoder: Φ(z₁) in red, Φ(z₂) in green, on 6×4 pixels."""
    z = np.asarray(z)
    colours = np.stack([norm.cdf(z[:, 0]), norm.cdf(z[:, 1]), np.zeros(len(z))], -1)
    return np.broadcast_to(colours[:, None, None], (len(z), 6, 4, 3))


def test_the_plane_is_decoded_at_the_quantiles_of_the_prior():
    asked = []
    figure = plots.latent_plane(lambda z: asked.append(z) or paint(z))
    (z,) = asked
    quantiles = norm.ppf((np.arange(20) + 0.5) / 20)
    assert z.shape == (400, 2)
    expected = {(a, b) for a in np.float32(quantiles) for b in np.float32(quantiles)}
    assert set(map(tuple, np.asarray(z))) == expected
    found = tiles(shown(figure.axes[0]), 6, 4)
    assert found.shape[:2] == (20, 20)
    masses = (np.arange(20) + 0.5) / 20
    for pixel in (found[..., 0, 0, :], found[..., -1, -1, :]):
        np.testing.assert_allclose(pixel[..., 0], np.tile(masses, (20, 1)), atol=1e-6)  # right
        np.testing.assert_allclose(pixel[..., 1], np.tile(masses[::-1, None], 20), atol=1e-6)  # up


@pytest.mark.parametrize("side", [1, 3, 20])
def test_the_plane_is_labelled_with_the_codes_that_are_there(side):
    figure = plots.latent_plane(paint, side)
    grid, axes = shown(figure.axes[0]), figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_{1}$", "$z_{2}$")
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
    figure = plots.encodings(z, labels, "codes")
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
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_{1}$", "$z_{2}$")
    assert axes.get_title() == "codes"


def test_codes_without_labels():
    z = noise(30, 2)
    (axes,) = plots.encodings(z).axes
    (points,) = axes.collections
    np.testing.assert_array_equal(points.get_offsets(), z)
    assert axes.get_legend() is None


def five_dimensions():
    random = np.random.default_rng(0)
    spread = np.diag([5.0, 0.1, 3.0, 1.0, 0.5]) @ np.linalg.qr(random.normal(size=(5, 5)))[0]
    return random.normal(size=(200, 5)) @ spread + 7


def test_the_projection_is_that_of_a_principal_component_analysis():
    (found, shares), analysis = plots.project(five_dimensions()), PCA(2)
    expected = analysis.fit_transform(five_dimensions())
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-9)
    np.testing.assert_allclose(shares, analysis.explained_variance_ratio_)


def test_encodings_of_more_than_two_dimensions_are_projected_and_say_how_much_is_seen():
    z = five_dimensions()
    (axes,) = plots.encodings(z).axes
    (points,) = axes.collections
    np.testing.assert_allclose(points.get_offsets(), plots.project(z)[0])
    first, second = PCA(2).fit(z).explained_variance_ratio_
    assert f"first component ({first:.0%} of the variance)" == axes.get_xlabel()
    assert f"second component ({second:.0%} of the variance)" == axes.get_ylabel()


def test_encodings_fill_their_canvas_whatever_the_codes_spread():
    z = noise(50, 2) * (10, 1)
    figure = plots.encodings(z)
    rendered(figure)
    box = figure.axes[0].get_position()
    assert min(box.width, box.height) > 0.85
    horizontal, vertical = np.diff(figure.axes[0].get_xlim()), np.diff(figure.axes[0].get_ylim())
    inches = figure.get_size_inches() * (box.width, box.height)
    assert horizontal / inches[0] == pytest.approx(vertical / inches[1])  # one unit is one length


@pytest.mark.parametrize("num", [50, 51, 1000])
def test_many_labels_do_not_push_the_codes_out_of_the_picture(num):
    figure = plots.encodings(noise(num, 2), np.arange(num))
    rendered(figure)
    axes = figure.axes[0]
    assert axes.get_position().width > 0.5
    if num > 50:
        assert axes.get_legend() is None
        assert f"{num} labels" in axes.texts[0].get_text()


def test_labels_that_are_not_one_a_code_are_refused():
    with pytest.raises(ValueError, match=r"'labels'.*each of the 30 codes.*shape \(30, 10\)"):
        plots.encodings(noise(30, 2), np.eye(10)[np.arange(30) % 10])


def test_one_code_alone_is_projected_to_the_origin():
    points, shares = plots.project(np.array([[3.0, -2.0, 1.0]]))
    np.testing.assert_allclose(points, [[0, 0]], atol=1e-12)
    np.testing.assert_array_equal(shares, 0)


# Traversals.


def bars(z):
    """One column of pixels for each dimension, of the brightness (z + 3) / 6."""
    return np.repeat((np.asarray(z)[:, None] + 3) / 6, 4, axis=1)


def codes_of(axes, width):
    return 6 * tiles(shown(axes), 4, width)[:, :, 0] - 3


def texts(ticks):
    return [text.get_text() for text in ticks]


def test_a_traversal_moves_one_dimension_a_row():
    start = np.array([0.3, -0.2, 0.1])
    figure = plots.traversal(bars, start, columns=7, extent=1.5)
    base, axes = figure.axes
    codes, values = codes_of(axes, 3), np.linspace(-1.5, 1.5, 7)
    for row in range(3):
        expected = np.tile(start, (7, 1))
        expected[:, row] = values
        np.testing.assert_allclose(codes[row], expected, atol=1e-6)
    assert texts(axes.get_yticklabels()) == ["$z_{1}$", "$z_{2}$", "$z_{3}$"]
    assert [int(at // 5) for at in axes.get_yticks()] == [0, 1, 2]  # tiles of 4 pixels and a gap
    assert [int(at // 4) for at in axes.get_xticks()] == list(range(7))
    columns = [float(text.replace("−", "-")) for text in texts(axes.get_xticklabels())]
    np.testing.assert_allclose(columns, values)
    assert axes.get_xlabel() == "standard deviations of the prior"
    np.testing.assert_allclose(codes_of(base, 3)[0, 0], start, atol=1e-6)  # where they start


def test_a_traversal_is_in_the_order_of_the_kl_with_inactive_dimensions_marked_and_the_image_named():
    image, kl = noise(1, 4, 3)[0], np.array([0.5, 2.25, 0.004])
    active = np.array([True, True, False])
    figure = plots.traversal(bars, np.zeros(3), image=image, name="a four", kl=kl, active=active)
    base, axes = figure.axes
    labels = ["$z_{2}$  2.25 nats", "$z_{1}$  0.50 nats", "$z_{3}$  0.00 nats  inactive"]
    assert texts(axes.get_yticklabels()) == labels
    colors = [text.get_color() for text in axes.get_yticklabels()]
    assert colors == ["black", "black", "grey"]
    moved = [np.flatnonzero(np.ptp(row, axis=0)).tolist() for row in codes_of(axes, 3)]
    assert moved == [[1], [0], [2]]
    original, reconstruction = tiles(shown(base), 4, 3)[:, 0]
    np.testing.assert_array_equal(original, image)
    np.testing.assert_allclose(reconstruction, 0.5)
    assert base.get_title() == "a four"


def test_a_traversal_of_many_dimensions_shows_those_with_the_largest_kl():
    kl = np.random.default_rng(0).permutation(50) / 10
    axes = plots.traversal(bars, np.zeros(50), kl=kl).axes[1]
    assert texts(axes.get_yticklabels())[0] == f"$z_{{{kl.argmax() + 1}}}$  4.90 nats"
    assert len(axes.get_yticks()) == 20
    assert "the largest 20 of 50" in axes.get_title()


@pytest.mark.parametrize(
    ("shape", "latent_dim"), [((28, 28), 10), ((48, 64, 3), 1), ((64,), 3), ((8, 8), 50)]
)
def test_no_label_of_a_traversal_is_cut_off(shape, latent_dim):
    def decode(z):
        return np.full((len(z), *shape), 0.5)

    options = {
        "image": noise(1, *shape)[0],
        "name": "image x[12]\nlabel 7",
        "active": [0] * latent_dim,
    }
    figure = plots.traversal(decode, np.zeros(latent_dim), kl=np.full(latent_dim, 12.34), **options)
    picture = rendered(figure)
    for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
        assert (edge == 255).all()


def test_a_scene_has_the_kl_of_each_dimension_and_marks_the_inactive_ones():
    x = noise(30, 8, 8, 1).astype("float32")
    vae = VAE(3, hidden_units=(), seed=0)
    vae.build((None, 8, 8, 1))
    weights = vae.encoder.get_weights()
    weights[0][:, 1] = 0.0  # z₂ knows nothing of the image, and its mean is 0
    vae.encoder.set_weights(weights)
    scene = Scene(vae, x)
    expected = np.asarray(gaussian_kl(*vae.encode(x), axis=None)).mean(0)
    np.testing.assert_allclose(scene.kl, expected, rtol=1e-5)
    labels = texts(plots.figures(vae, x, only=["traversal"])["traversal"].axes[1].get_yticklabels())
    assert [label.endswith("inactive") for label in labels] == [
        "z_{2}" in label for label in labels
    ]
    assert labels[0].startswith(f"$z_{{{expected.argmax() + 1}}}$")


# What the codes carry.


def test_the_bars_of_the_kl_are_named_from_one():
    (axes,) = plots.kl_per_dimension(np.array([0.5, 2.0, 1.0])).axes
    assert texts(axes.get_xticklabels()) == ["$z_{2}$", "$z_{3}$", "$z_{1}$"]
    assert [bar.get_height() for bar in axes.patches] == [2, 1, 0.5]


def test_the_aggregate_posterior_is_in_sight_wherever_it_is():
    z = np.random.default_rng(0).normal((7, 0, 0), size=(2000, 3))
    z[0, 1] = 1000  # a stray code sets no scale
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.aggregate_posterior(z, [0, 2])
        rendered(figure)
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("$z_{1}$", "$z_{3}$")
    for axes, mean in ((first, 7), (second, 0)):
        low, high = axes.get_xlim()
        assert low <= -4
        assert 10 < high < 20
        heights, edges, _ = axes.patches[0].get_data()
        middles = (edges[1:] + edges[:-1]) / 2
        assert (heights * middles * np.diff(edges)).sum() == pytest.approx(mean, abs=0.1)
        points, density = axes.get_lines()[0].get_data()
        np.testing.assert_allclose(density, norm.pdf(points))
        assert (points[0], points[-1]) == (low, high)


def test_a_narrow_code_leaves_the_prior_to_be_seen():
    z = np.random.default_rng(0).normal(0, (1, 0.001), size=(2000, 2))
    (axes, _) = plots.aggregate_posterior(z, [0, 1]).axes
    assert axes.get_ylim()[1] < 3 * norm.pdf(0)
