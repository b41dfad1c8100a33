"""Figures of scores, and images in coloured frames."""

import numpy as np
import pytest
from plot_helpers import noise
from sklearn.metrics import roc_auc_score

from vae_tf.plots import detection, marked

SCORES = np.random.default_rng(0).random(50)
ANOMALOUS = SCORES > 0.8


def colours_of(figure, side, columns):
    """The colour of the frame of each image in a picture, by the pixel at its corner."""
    (image,) = figure.axes[0].images
    grid = np.asarray(image.get_array())
    return [tuple(grid[0, column * (side + 1)]) for column in range(columns)]


def test_the_highest_scores_come_first_in_the_colour_of_their_kind():
    images = np.zeros((50, 12, 12))
    known = np.arange(50) % 2 == 0
    figure = marked.most_anomalous(images, SCORES, None, known, count=5)
    expected = [marked.RED if known[i] else marked.BLUE for i in np.argsort(-SCORES)[:5]]
    assert colours_of(figure, 14, 5) == expected
    grey = marked.most_anomalous(images, SCORES, count=1)
    assert colours_of(grey, 14, 1) == [marked.GREY]


def test_what_came_back_is_framed_by_whether_it_is_right():
    queries, found = noise(2, 12, 12), noise(6, 12, 12).reshape(2, 3, 12, 12)
    figure = marked.retrieved(queries, found, np.array([[True, False, True]] * 2), ["a", "b"])
    grid = np.asarray(figure.axes[0].images[0].get_array())
    corners = [tuple(grid[0, 14 + 3 + 1 + 15 * i]) for i in range(3)]  # query, gap, gap of a pixel
    assert corners == [marked.GREEN, marked.RED, marked.GREEN]
    assert grid[1:13, 1:13, 0] == pytest.approx(queries[0])
    assert grid[16:28, 19:31, 0] == pytest.approx(found[1, 0])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_histograms_are_shares_and_none_is_left_out():
    values = np.append(SCORES, 40.0)  # far away
    figure = detection.score_histograms(values, np.append(ANOMALOUS, True), threshold=0.9)
    heights = np.array([patch.get_height() for patch in figure.axes[0].patches])
    assert heights.sum() == pytest.approx(2)  # of each kind all
    assert "the last bin has all that is above" in figure.axes[0].get_title()


def test_roc_curves_say_their_area():
    figure = detection.roc_curves(ANOMALOUS, {"pca": SCORES, "nll": -SCORES}, (0.1, 0.7))
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words[0] == f"PCA: {roc_auc_score(ANOMALOUS, SCORES):.3f}"
    assert words[2] == "the threshold"
    assert figure.axes[0].get_lines()[2].get_xydata().tolist() == [[0.1, 0.7]]


def test_held_out_areas_have_their_means():
    found = {"a": {"pca": (0.5, 0.4, 0.6)}, "b": {"pca": (0.7, 0.6, 0.8)}}
    figure = detection.held_out_areas(found)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "PCA: mean 0.600"
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b"]
