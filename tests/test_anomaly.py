"""Anomaly scores, the figures that judge them, thresholds and the file that keeps one; `vae-tf anomaly`."""

import json
import math

import numpy as np
import pytest
import small_models
from helpers import blobs
from linear_models import POINTS, closed_form, linear_vae
from scipy import special
from sklearn.metrics import roc_auc_score

import vae_tf
from vae_tf import export
from vae_tf.applications import anomaly, detection, scores, source_of, thresholds
from vae_tf.applications.config import SCORES
from vae_tf.applications.thresholds import Threshold
from vae_tf.cli import main
from vae_tf.errors import InvalidTypeError, InvalidValueError
from vae_tf.export import verify
from vae_tf.serving.server import EmbeddedServer
from vae_tf.serving.status import ServingError

LABELS = np.arange(60) % 3 == 0


def scored(num=400, shift=0.8, digits=None, seed=0):
    random = np.random.default_rng(seed)
    anomalous = random.random(num) < 0.2
    values = random.standard_normal(num) + shift * anomalous
    return anomalous, values if digits is None else values.round(digits)


@pytest.fixture(scope="module")
def vae():
    model = vae_tf.VAE(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, 8, 8, 1))
    return model


@pytest.fixture(scope="module")
def saved_model(vae, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "model"
    export.export_decoder(vae, out, with_encoder=True)
    return out


# The figures.


@pytest.mark.parametrize("digits", [None, 0])  # without ties, and with many
def test_the_error_of_the_area_is_delongs(digits):
    """By all pairs of a normal and an anomalous image, and by a stratified bootstrap."""
    anomalous, values = scored(1000, digits=digits)
    positives, negatives = values[anomalous], values[~anomalous]
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    parts = wins.mean(axis=1), wins.mean(axis=0)
    error = math.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    random, drawn = np.random.default_rng(0), []
    for _ in range(1000):
        rows, columns = (random.integers(n, size=n) for n in wins.shape)
        drawn.append(wins[rows][:, columns].mean())
    assert np.std(drawn) == pytest.approx(error, rel=0.1)
    found = detection.auroc(anomalous, values)
    assert found.value == pytest.approx(wins.mean()) == roc_auc_score(anomalous, values)
    low, high = (special.logit(end) for end in (found.low, found.high))
    assert (high - low) / 2 == pytest.approx(1.959964 * error / (found.value * (1 - found.value)))
    assert (high + low) / 2 == pytest.approx(special.logit(found.value))


@pytest.mark.parametrize("figure", [detection.auroc, detection.average_precision])
def test_intervals_hold_the_figure_of_all_images(figure):
    """Of 200 sets of 400 images, 95 % of the intervals; at most 4 standard errors of that share fewer."""
    true = figure(*scored(200_000, seed=1)).value
    found = [figure(*scored(seed=seed)) for seed in range(2, 202)]
    inside = np.mean([each.low <= true <= each.high for each in found])
    assert inside >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 200)


def test_figures_without_an_error_and_of_one_anomaly():
    assert detection.auroc(LABELS, LABELS.astype(float)) == detection.Interval(1.0, 1.0, 1.0)
    one = detection.auroc([False, True, False], [1.0, 2.0, 3.0])
    assert one.value == 0.5
    assert math.isnan(one.low)


@pytest.mark.parametrize(
    ("anomalous", "values", "words"),
    [
        (np.zeros(3, bool), [1, 2, 3], "3 images, all of them normal"),
        (np.ones(3, bool), [1, 2, 3], "3 images, all of them anomalous"),
        (
            LABELS,
            np.where(LABELS, 1, np.nan),
            "NaN or infinity for 40 of 60 images, first for number 1",
        ),
        (LABELS, [1, 2], "one for each of 60 images"),
        ([0, 1], [1, 2], "booleans"),
    ],
)
def test_figures_that_are_not_defined_are_refused(anomalous, values, words):
    with pytest.raises(InvalidValueError, match=words):
        detection.auroc(anomalous, values)


def test_wilsons_interval():
    """3 of 20 at 95 %: 0.0524 to 0.3604 (Newcombe 1998 has such tables)."""
    found = detection.share([True] * 3 + [False] * 17)
    assert found.value == 0.15
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3604), abs=1e-4)


# The threshold.


def test_a_threshold_keeps_its_rate_on_new_images():
    """The expectation of the rate is ⌊α(n + 1)⌋/(n + 1), here 4/99, for scores of any distribution."""
    random, rates = np.random.default_rng(0), []
    for _ in range(2000):
        value = detection.choose_threshold(random.exponential(size=98), 0.05)
        rates.append(math.exp(-value))  # P(s > t)
    assert np.mean(rates) == pytest.approx(4 / 99, abs=4 * np.std(rates) / math.sqrt(2000))


def test_a_threshold_of_too_few_images_is_refused():
    assert detection.choose_threshold(np.arange(99.0), 0.01) == 98
    with pytest.raises(InvalidValueError, match="at least 99 normal images"):
        detection.choose_threshold(np.arange(98.0), 0.01)
    with pytest.raises(InvalidValueError, match="above 0 and below 1"):
        detection.choose_threshold(np.arange(98.0), 1.5)


THRESHOLD = Threshold("reconstruction_error", 0.5, 0.05, 40, [0.04, 0.0, 0.1], 40)


def test_a_threshold_is_kept_with_the_newest_version(saved_model):
    file = thresholds.save_threshold(saved_model, THRESHOLD)
    assert file == saved_model / "1" / "assets.extra" / "anomaly.json"
    assert thresholds.load_threshold(saved_model) == THRESHOLD
    assert thresholds.load_threshold(saved_model / "1") == THRESHOLD
    assert thresholds.load_threshold(file) == THRESHOLD
    assert not [*file.parent.glob(".unfinished*")]


@pytest.mark.slow
def test_an_export_with_a_threshold_is_verified(vae, saved_model):
    """And the file changes nothing of what is loaded."""
    thresholds.save_threshold(saved_model, THRESHOLD)
    assert verify.verify(saved_model).passed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({**vars(THRESHOLD), "value": None}),
        json.dumps({**vars(THRESHOLD), "x": 1}),
    ],
)
def test_a_damaged_threshold_is_named(tmp_path, content):
    (tmp_path / "anomaly.json").write_text(content)
    with pytest.raises(InvalidValueError, match=r"anomaly\.json"):
        thresholds.load_threshold(tmp_path / "anomaly.json")


def test_a_model_without_a_threshold_is_named(vae, tmp_path):
    with pytest.raises(InvalidValueError, match="directory of its versions, a run"):
        thresholds.load_threshold(tmp_path)


# The scores.


def test_the_names_of_the_option_are_those_of_the_table():
    assert tuple(scores.BY_NAME) == SCORES


def test_scores_have_their_closed_forms():
    """A linear model with Gaussian pixels has all of them; the tolerances are of the draws' spread."""
    model = linear_vae(matched=False)
    exact = closed_form(model, POINTS)
    found = scores.anomaly_scores(model, POINTS.astype("float32"), None, 400)
    assert tuple(found) == SCORES
    squares = (model.reconstruct(POINTS) - POINTS) ** 2
    assert found["reconstruction_error"] == pytest.approx(squares.mean(axis=1), rel=1e-4)
    error = exact.spread / math.sqrt(400)
    of_mean = 5 * math.sqrt((error**2).sum()) / len(POINTS)
    pairs = {"negative_elbo": -exact.elbo, "nll": -exact.log_p}
    pairs["reconstruction_probability"] = exact.reconstruction_loss
    for name, expected in pairs.items():
        assert (np.abs(found[name] - expected) < 6 * error).all()
        assert found[name].mean() == pytest.approx(expected.mean(), abs=of_mean)


@pytest.mark.slow
def test_a_condition_goes_to_every_score():
    model = small_models.Labelled(latent_dim=2, hidden_units=(8,), seed=0)
    model.build((None, 8, 8, 1))
    x, labels = blobs(6)[..., None] > 100, np.arange(6) % 4
    told = scores.anomaly_scores(model, x, num_samples=3, condition=labels)
    other = scores.anomaly_scores(model, x, num_samples=3, condition=(labels + 1) % 4)
    assert tuple(told) == SCORES
    assert all((told[name] != other[name]).any() for name in SCORES)
    with pytest.raises(InvalidValueError, match="label"):
        scores.anomaly_scores(model, x)


def test_an_export_gives_what_the_model_gives(vae, saved_model):
    x = blobs(5)[..., None]
    names = ["reconstruction_error", "negative_elbo"]
    here, there = (scores.anomaly_scores(source, x, names) for source in (vae, str(saved_model)))
    for name in names:
        assert here[name] == pytest.approx(there[name], rel=1e-4)
    assert tuple(scores.anomaly_scores(str(saved_model), x)) == tuple(names)


def test_a_score_that_a_source_has_not_is_refused(vae, saved_model):
    x = blobs(5)[..., None]
    with pytest.raises(InvalidTypeError, match=r"a run's or a vae_tf\.Model, .*, for 'nll'"):
        scores.anomaly_scores(str(saved_model), x, ["nll"])
    with pytest.raises(InvalidValueError, match="grey values"):
        scores.anomaly_scores(vae, x, ["nll"])
    plain = vae_tf.Autoencoder(latent_dim=2, hidden_units=(8,), seed=0)
    plain.build((None, 8, 8, 1))
    assert scores.available(source_of(plain), x) == ("reconstruction_error",)
    with pytest.raises(
        InvalidTypeError, match="'reconstruction_error' is one that every model has"
    ):
        scores.check_score(source_of(plain), "reconstruction_probability", x)


def test_scores_that_are_not_finite_are_refused(vae, monkeypatch):
    monkeypatch.setattr(scores, "squares", lambda x, made: np.full(len(x), np.nan))
    with pytest.raises(InvalidValueError, match=r"'reconstruction_error'.*5 of 5 images"):
        scores.anomaly_scores(vae, blobs(5)[..., None], ["reconstruction_error"])


# The command.


def command(*words):
    return main(["anomaly", *map(str, words)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Bars as normal images, noise as anomalies, in files."""
    folder = tmp_path_factory.mktemp("images")
    x = blobs(90)
    np.savez(folder / "labelled.npz", x=x, y=x.argmax(axis=1)[:, 0])
    noise = np.random.default_rng(0).integers(0, 256, (10, 8, 8)).astype("uint8")
    np.savez(folder / "noise.npz", x=noise)
    np.savez(folder / "new.npz", x=np.concatenate([noise[:2], x[:3]]))
    return folder


def test_a_threshold_is_chosen_kept_and_flags(saved_model, files, tmp_path, capsys):
    words = ("--data", files / "labelled.npz", "--anomalies", files / "noise.npz")
    assert command(saved_model, *words, "--false-alarms", 0.1, "--out", tmp_path / "chosen") == 0
    metrics = json.loads((tmp_path / "chosen" / "metrics.json").read_text())
    kept = thresholds.load_threshold(saved_model)
    assert kept.normal_images == kept.judged == 45
    assert metrics["threshold"]["value"] == kept.value
    x = np.load(files / "labelled.npz")["x"][..., None]
    values = scores.anomaly_scores(str(saved_model), x)["reconstruction_error"]
    on, others = np.array_split(np.random.default_rng(0).permutation(90), 2)
    assert kept.value == np.sort(values[on])[-4]  # ⌊0.1 · 46⌋ = 4 may be above it
    assert kept.achieved[0] == pytest.approx((values[others] > kept.value).mean())
    assert {path.name for path in (tmp_path / "chosen").glob("*.png")} == {
        "scores.png", "roc.png", "most_anomalous.png"
    }  # fmt: skip

    assert command(saved_model, "--data", files / "new.npz", "--out", tmp_path / "new") == 0
    flagged = json.loads((tmp_path / "new" / "metrics.json").read_text())["flagged"]
    flags, values = anomaly.flag(str(saved_model), np.load(files / "new.npz")["x"][..., None], kept)
    assert {entry["image"] for entry in flagged} == {f"x[{i}]" for i in np.flatnonzero(flags)}
    assert [entry["score"] for entry in flagged] == pytest.approx(sorted(values[flags])[::-1])


def test_labels_say_which_are_anomalies(saved_model, files, tmp_path):
    words = ("--data", files / "labelled.npz", "--anomalous", "2,5", "--out", tmp_path / "out")
    assert command(saved_model, *words) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    file = np.load(files / "labelled.npz")
    values = scores.anomaly_scores(str(saved_model), file["x"][..., None])["negative_elbo"]
    expected = roc_auc_score(np.isin(file["y"], [2, 5]), values)
    assert metrics["scores"]["negative_elbo"]["auroc"]["value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "labelled.npz", "--anomalous", "nine"), "labels of the images (0, 1, 2, 3, 4, 5, 6, 7)"),
        (("--data", "noise.npz", "--anomalous", "1"), "data with a label for each image"),
        (("--data", "labelled.npz", "--false-alarms", "0.001"), "at least 999 normal images"),
        (("--data", "labelled.npz", "--false-alarms", "2"), "a number above 0 and below 1"),
        (("--data", "labelled.npz", "--anomalous", "1", "--scores", "nll"), "the model itself, a run's or a vae_tf.Model"),
        (("--data", "new.npz", "--threshold", "nowhere"), "a SavedModel, a directory of its versions"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_before_it_is_scored(
    saved_model, files, tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(files)
    monkeypatch.setattr(scores, "anomaly_scores", None)
    assert command(saved_model, *words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_binarisation_than_the_thresholds_is_refused(saved_model, files, tmp_path, capsys):
    thresholds.save_threshold(saved_model, THRESHOLD)
    words = ("--data", files / "new.npz", "--binarize", "fixed", "--out", tmp_path / "out")
    assert command(saved_model, *words) == 2
    assert "--binarize none has them so" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_gives_the_scores_of_its_model(vae, saved_model, files, tmp_path):
    """And when it goes away half way, that is an error, and nothing is written."""
    x, names = blobs(5)[..., None], ["reconstruction_error", "negative_elbo"]
    words = ("--data", files / "labelled.npz", "--anomalous", 2, "--out", tmp_path / "out")
    with EmbeddedServer(saved_model, rest_port=0, grpc_port=0) as server:
        address = f"http://{server.rest_address}"
        there, here = (scores.anomaly_scores(source, x, names) for source in (address, vae))
        for name in names:
            assert there[name] == pytest.approx(here[name], rel=1e-4)
        with pytest.raises(InvalidTypeError, match="the model itself"):
            scores.anomaly_scores(address, x, ["nll"])
        with pytest.raises(ServingError):
            scores.anomaly_scores(address, x, names, progress=lambda *_: server.stop())
    assert command(address, *words) == 1
    assert not (tmp_path / "out").exists()
