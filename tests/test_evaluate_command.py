"""`vae-tf evaluate`: its figures, its report, and what it refuses."""

import base64
import contextlib
import hashlib
import importlib.metadata
import io
import json
import pathlib
import re
import shutil
import subprocess
import sysconfig

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import blobs
from PIL import Image
from report_page import Page

from vae_tf import VAE, cli, data, evaluation, plots

COMMAND = str(pathlib.Path(sysconfig.get_path("scripts")) / "vae-tf")
FILES = {"report.md", "report.html", "metrics.json"}
FIGURES = {
    "kl_per_dimension", "aggregate_posterior", "reconstruct", "generated", "latent_plane", "encodings",
}  # fmt: skip
PICTURES = {f"{name}.png" for name in (*FIGURES, "likelihood_curve", "extremes")}
QUICK = ("--measures", "reconstruction")
RUNS = {
    "dynamic": "--data bars.npz --binarize dynamic",
    "fixed": "--data bars.npz --binarize fixed",
    "grey": "--data bare.npz",
    "gaussian": "--data bars.npz --likelihood gaussian",
}


def build_the_optimizer(model, *args, **kwargs):
    """In place of `fit`."""
    model.optimizer.build(model.trainable_variables)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with data, one run of each kind, and the `dynamic` one evaluated in a shell.

    The others keep the weights that they began with: it is not their training that is measured.
    """
    folder = tmp_path_factory.mktemp("runs")
    x = {"x_train": blobs(60), "x_test": blobs(20, seed=1)}
    y = {"y_train": x["x_train"].argmax(1)[:, 0] // 3, "y_test": x["x_test"].argmax(1)[:, 0] // 3}
    np.savez(folder / "bars.npz", **x, **y)
    np.savez(folder / "bare.npz", **x)
    np.savez(folder / "half.npz", **x, y_test=y["y_test"])
    np.savez(folder / "wide.npz", x=blobs(20, (8, 9)))
    (folder / "taken").mkdir()
    (folder / "note").write_text("a file")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(plots, "draw", lambda *args: [])
        small = "--hidden-units 16 --latent-dim 2 --batch-size 20 --steps 30 --kl-warmup 0"
        for name, options in RUNS.items():
            assert cli.main(["train", *small.split(), *options.split(), "--run", name]) == 0
            patch.setattr(VAE, "fit", build_the_optimizer)
    shutil.copytree(folder / "grey", folder / "unfinished")
    (folder / "unfinished" / "model.keras").unlink()
    command = [COMMAND, "evaluate", "dynamic", "--num-samples", "50"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    (folder / "out.txt").write_text(process.stdout)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def evaluate(*arguments):
    """The status of `vae-tf evaluate`."""
    return cli.main(["evaluate", *map(str, arguments)])


def metrics(folder):
    """`metrics.json`, read as strictly as JSON is defined: without NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def names(folder):
    return {path.name for path in pathlib.Path(folder).iterdir()}


def listing(folder="."):
    """Every file below `folder` with its content."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def trained(run):
    return keras.models.load_model(f"{run}/model.keras")


def agrees(entry, estimate):
    """Whether a mean and a standard error of `metrics.json` are those of an array or an `Estimate`."""
    if isinstance(estimate, np.ndarray):
        found = estimate.mean(), estimate.std(ddof=1) / np.sqrt(len(estimate))
    else:
        found = estimate.mean, estimate.standard_error
    return (entry["mean"], entry["standard_error"]) == pytest.approx(found, rel=1e-5)


# What it computes.


def test_in_a_shell_it_leaves_a_report_and_prints_its_table(place):
    assert names("dynamic/evaluation") == FILES | PICTURES
    found, out = metrics(place / "dynamic/evaluation"), (place / "out.txt").read_text()
    assert "dynamic: 20 test images of bars\n" in out
    for label, entry in (
        ("ELBO", found["elbo"]["elbo"]),
        ("KL", found["elbo"]["kl_loss"]),
        ("ELBO, 20 test images", found["elbo"]["elbo"]),
        ("gap", found["gap"]["gap"]),
        (r"log p\(x\), K = 50", found["likelihood"]),
        ("mutual information of z and the image", found["latent"]["mutual_information"]),
        ("cross-entropy, nats per image", found["reconstruction"]["cross_entropy"]),
    ):
        (value,) = re.findall(rf"^  {label}  +(\S.*)$", out, re.M)
        assert value == f"{entry['mean']:.2f} ± {entry['standard_error']:.2f}"
    assert set(re.findall(r"^  dynamic/evaluation/(\S+)$", out, re.M)) == FILES
    assert out.count("K = 50") == 1


@pytest.mark.slow
def test_a_second_evaluation_has_its_own_directory_and_the_same_figures(place, capsys):
    """In another process and with another batch size; another seed has others."""
    assert evaluate("dynamic", "--num-samples", 50, "--batch-size", 7) == 0
    assert "dynamic/evaluation_2/report.html\n" in capsys.readouterr().out
    one, two = (metrics(place / f"dynamic/{name}") for name in ("evaluation", "evaluation_2"))
    command = "vae-tf evaluate dynamic --num-samples 50"
    assert one["settings"].pop("command") == command
    assert two["settings"].pop("command") == f"{command} --batch-size 7"
    for settings in (one["settings"], two["settings"]):
        del settings["seconds"], settings["date"]
    assert one.pop("settings") == two.pop("settings")
    assert flat(two) == pytest.approx(flat(one), rel=1e-5)
    assert evaluate("dynamic", "--measures", "elbo", "--seed", 1, "--out", "seeded") == 0
    assert metrics(place / "seeded")["elbo"]["elbo"]["mean"] != one["elbo"]["elbo"]["mean"]


def flat(entry, name=""):
    """Nested dictionaries and lists as one dictionary of numbers."""
    if not isinstance(entry, (dict, list)):
        return {name: entry}
    pairs = entry.items() if isinstance(entry, dict) else enumerate(entry)
    return {k: v for key, value in pairs for k, v in flat(value, f"{name}/{key}").items()}


def test_the_figures_are_those_of_the_functions_and_of_numpy(place):
    found, model = metrics(place / "dynamic/evaluation"), trained("dynamic")
    images = data.binarize(data.load(data="bars.npz"), seed=0)
    x = images.x_test
    terms = evaluation.elbo(model, x, seed=0)
    for name, estimate in terms.items():
        assert agrees(found["elbo"][name], estimate)
    assert found["elbo"]["grey"] is False
    result = evaluation.log_likelihood(model, x, 50, seed=0)
    assert (found["likelihood"]["num_samples"], found["likelihood"]["images"]) == (50, 20)
    assert agrees(found["likelihood"], result.per_image)
    assert found["likelihood"]["curve"].keys() == {"1", "5", "50"}
    for k, estimate in result.curve.items():
        assert agrees(found["likelihood"]["curve"][str(k)], estimate)
    sizes = result.effective_sample_size
    expected = {"mean": sizes.mean(), "median": np.median(sizes), "p5": np.percentile(sizes, 5)}
    assert found["likelihood"]["effective_sample_size"] == pytest.approx(expected, rel=1e-5)
    z_mean, z_log_var = (part.astype("float64") for part in model.encode(x))
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var)
    np.testing.assert_allclose(found["latent"]["kl_per_dimension"], kl.mean(0), rtol=1e-5)
    assert found["latent"]["active_units"] == (z_mean.var(0) > 0.01).sum()
    mse = np.square(model.reconstruct(x) - x).reshape(20, -1).mean(1)
    assert agrees(found["reconstruction"]["mse"], mse)
    distances = np.linalg.norm(model.encode(images.x_train)[0] - z_mean[:, None], axis=2)
    right = images.y_train[distances.argmin(1)] == images.y_test
    assert 0 < right.mean() < 1
    assert agrees(found["neighbours"], right)
    chosen = np.sort(np.random.default_rng(0).permutation(60)[:20])
    others = evaluation.elbo(model, images.x_train[chosen], seed=0)["elbo"]
    assert agrees(found["gap"]["train"], others)
    assert agrees(found["gap"]["test"], terms["elbo"])
    difference = others.mean - terms["elbo"].mean
    assert found["gap"]["gap"]["mean"] == pytest.approx(difference, rel=1e-3)


def test_the_settings_say_what_is_needed_to_do_it_again(place):
    settings = metrics(place / "dynamic/evaluation")["settings"]
    images = data.binarize(data.load(data="bars.npz"), seed=0)
    digest = hashlib.sha256(images.x_train.tobytes() + images.x_test.tobytes()).hexdigest()
    assert settings["data SHA-256"] == digest
    assert (settings["run"], settings["seed"], settings["trained steps"]) == ("dynamic", 0, 30)
    assert settings["data"] == "bars, test, 20 images"
    assert settings["binarized"] == "dynamic, drawn once by seed 0"
    for name in ("tensorflow", "keras", "numpy"):
        assert f"{name} {importlib.metadata.version(name)}" in settings["versions"]
    text = (place / "dynamic/evaluation/report.md").read_text()
    assert all(f"| {name} | {value} |" in text for name, value in settings.items())
    head = text.partition("## Evidence lower bound")[0]
    for name in ("model", "trained steps", "data", "images", "binarized"):
        assert f"| {name} | {settings[name]} |" in head
    assert settings["images"] == "8×8×1, binary"
    assert settings["model"].startswith("VAE, ")


def test_the_training_images_the_first_of_them_and_some_measures(place, capsys):
    measures = "elbo,neighbours"
    options = ("--split", "train", "--images", 9, "--measures", measures, "--seed", 4)
    assert evaluate("dynamic", *options, "--out", "part") == 0
    out, found = capsys.readouterr().out, metrics(place / "part")
    assert "dynamic: 9 train images of bars\n" in out
    assert found.keys() == {"settings", *measures.split(",")}
    assert "Log-likelihood" not in out
    model, images = trained("dynamic"), data.binarize(data.load(data="bars.npz"), seed=4)
    x, y = images.x_train[:9], images.y_train[:9]
    assert agrees(found["elbo"]["elbo"], evaluation.elbo(model, x, seed=4)["elbo"])
    z_mean = model.encode(x)[0]
    distances = np.linalg.norm(z_mean - z_mean[:, None], axis=2) + np.diag([np.inf] * 9)
    assert agrees(found["neighbours"], y[distances.argmin(1)] == y)


def test_one_image_alone_gives_figures_that_json_can_hold(place):
    options = ("--images", 1, "--num-samples", 5)
    assert evaluate("dynamic", *options, "--out", "single") == 0
    found = metrics(place / "single")
    assert np.isfinite(found["elbo"]["elbo"]["mean"])
    assert found["elbo"]["elbo"]["standard_error"] is None
    assert found["gap"]["gap"]["standard_error"] is None
    assert "nan" not in (place / "single/report.md").read_text()


@pytest.mark.parametrize(("run", "how"), [("fixed", ()), ("grey", ("--binarize", "fixed"))])
def test_fixed_images_are_the_one_draw_of_all_runs_whatever_the_seed(run, how, place):
    out = f"{run}_drawn"
    assert evaluate(run, *how, *QUICK, "--seed", 3, "--out", out) == 0
    settings = metrics(place / out)["settings"]
    record = json.loads(pathlib.Path("fixed/config.json").read_text())
    assert settings["data SHA-256"] == record["data"]["sha256"]
    assert settings["binarized"] == "fixed"


def test_other_images_are_binarized_as_the_run_was(place):
    np.savez("more.npz", x_train=blobs(5), x_test=blobs(12, seed=7))
    assert evaluate("dynamic", "--data", "more.npz", *QUICK, "--out", "others") == 0
    found = metrics(place / "others")
    assert found["settings"]["data"] == "more, test, 12 images"
    x = data.binarize(data.load(data="more.npz"), seed=0).x_test
    mse = np.square(trained("dynamic").reconstruct(x) - x).reshape(12, -1).mean(1)
    assert agrees(found["reconstruction"]["mse"], mse)


# Grey values, other likelihoods, labels.


def by_quadrature(run, density):
    """The mean of log ∫ p(x|z) p(z) dz over images, on a grid; `density` is of each pixel."""
    line = np.linspace(-6, 6, 61)
    z = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    log_p = np.log(density(trained(run).decode_images(z)[None])).sum(axis=(2, 3, 4))
    log_prior = scipy.stats.norm.logpdf(z).sum(axis=1)
    return (scipy.special.logsumexp(log_p + log_prior, axis=1) + 2 * np.log(0.2)).mean()


def test_on_grey_values_no_log_likelihood_is_claimed(place, capsys):
    assert evaluate("grey", "--out", "grey_report") == 0
    out, found = capsys.readouterr().out, metrics(place / "grey_report")
    # nor are there labels
    assert found.keys() == {"settings", "elbo", "gap", "latent", "reconstruction"}
    assert found["elbo"]["grey"] is True
    assert names("grey_report") == FILES | {f"{name}.png" for name in FIGURES}
    value = f"{found['elbo']['elbo']['mean']:.2f} ± "
    files = [place / "grey_report" / name for name in ("report.md", "report.html")]
    for text in (out, *(path.read_text() for path in files)):
        text = text.replace("</td>\n<td>", "</td><td>")  # a row on one line
        assert re.search(rf"−loss.*grey values.*no bound of .*{value}", text)
        assert "Not computed: the images have grey values" in text
        assert "ELBO" not in text
        assert "Loss on grey values" in text
        assert "grey values under a Bernoulli: what is shown is a loss" in text
        assert "Caution" not in text  # they are what it was trained on


def test_a_run_on_grey_values_can_be_asked_on_binary_ones(place, capsys):
    options = ("--binarize", "dynamic", "--num-samples", 1000, "--seed", 2)
    assert evaluate("grey", *options, "--out", "binary_report") == 0
    found = metrics(place / "binary_report")
    x = data.binarize(data.load(data="bare.npz"), seed=2).x_test
    expected = by_quadrature("grey", lambda p: np.where(x[:, None], p, 1 - p))
    assert found["likelihood"]["mean"] == pytest.approx(expected, abs=0.03)
    assert found["elbo"]["grey"] is False
    caveat = "Trained on grey values, scored on binary images: not to be compared with"
    for name in ("elbo", "likelihood"):
        assert found[name]["caveats"][0].startswith(caveat)
    assert f"Caution: {caveat}" in capsys.readouterr().out
    assert f"**Caution:** {caveat}" in (place / "binary_report/report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "caveat"),
    [
        ("dynamic --binarize none", "Trained on binary images, scored on grey values"),
        (
            "grey --data bars.npz --binarize fixed",
            "Trained on grey values, scored on binary images",
        ),
        ("dynamic --data bars.npz", None),
        ("gaussian", None),
    ],
)
def test_what_it_was_trained_on_goes_with_the_figures(arguments, caveat, place):
    out = f"of_{arguments.replace(' ', '_')}"
    assert evaluate(*arguments.split(), "--measures", "elbo", "--out", out) == 0
    caveats = metrics(place / out)["elbo"].get("caveats", [])
    assert [words.partition(":")[0] for words in caveats] == ([caveat] if caveat else [])


def test_the_gap_is_that_of_the_runs_own_images(place):
    options = ("--data", "bars.npz", "--measures", "elbo,gap", "--out", "foreign")
    assert evaluate("dynamic", *options) == 2
    options = ("--data", "bars.npz", "--num-samples", 2, "--out", "foreign")
    assert evaluate("dynamic", *options) == 0
    assert "gap" not in metrics(place / "foreign")
    assert "Not computed: the images are others" in (place / "foreign/report.md").read_text()


def test_a_gaussian_run_has_a_log_likelihood_of_its_grey_values(place, capsys):
    assert evaluate("gaussian", "--num-samples", 1000, "--out", "gaussian_report") == 0
    found, out = metrics(place / "gaussian_report"), capsys.readouterr().out
    x = data.load(data="bars.npz").x_test[:, None] / 255
    expected = by_quadrature("gaussian", lambda mean: scipy.stats.norm(mean, 1).pdf(x))
    assert found["likelihood"]["mean"] == pytest.approx(expected, abs=0.03)
    assert re.search(r"^  ELBO  ", out, re.M)
    assert found.keys() >= {"latent", "reconstruction", "neighbours"}


def test_labels_of_the_test_images_alone_are_no_reason_to_fail(place, capsys):
    """The codes of labelled training images are missing: nothing to compare with."""
    options = ("dynamic", "--data", "half.npz", "--num-samples", 5, "--out", "half_report")
    assert evaluate(*options) == 0, capsys.readouterr().err
    assert "neighbours" not in metrics(place / "half_report")


# The report.


def test_the_page_loads_nothing_and_holds_every_picture(place):
    folder = place / "dynamic/evaluation"
    page = Page(folder / "report.html")
    assert page.texts["title"] == ["Evaluation of dynamic"]
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not re.search(r"\b(https?|file):|//", value) or value.startswith("data:"), name
    assert not re.search(r"url\(|@import", "".join(page.texts["style"]))
    inside = set()
    for attributes in (attributes for tag, attributes in page.tags if tag == "img"):
        kind, content = attributes["src"].split(",")
        assert kind == "data:image/png;base64"
        content = base64.b64decode(content, validate=True)
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "PNG"
            assert np.asarray(picture).std() > 0
        inside.add(attributes["alt"] + ".png")
        assert (folder / (attributes["alt"] + ".png")).read_bytes() == content
    assert inside == PICTURES


def test_the_markdown_shows_every_picture_and_the_cells_of_the_page(place):
    folder = place / "dynamic/evaluation"
    text = (folder / "report.md").read_text()
    shown = re.findall(r"^!\[.*?\]\((.+?)\)$", text, re.M)
    assert set(shown) == PICTURES
    assert all((folder / name).is_file() for name in shown)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in re.findall(r"^\| \S.*$", text, re.M)]
    rows = [row for row in rows if row != [" ", " "]]
    assert {len(row) for row in rows} == {2}
    cells = [cell.strip().replace("\\|", "|") for row in rows for cell in row]
    assert cells == Page(folder / "report.html").texts["td"]


def test_a_name_with_html_in_it_is_shown_as_it_is(place):
    name = 'a<b>&"c'
    shutil.copytree("grey", name)
    assert evaluate(name, *QUICK) == 0
    page = Page(place / name / "evaluation" / "report.html")
    assert page.texts["title"] == page.texts["h1"] == [f"Evaluation of {name}"]
    assert name in page.texts["td"]
    assert "b" not in {tag for tag, _ in page.tags}


# What cannot be used, and Ctrl-C.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dynamic --data wide.npz", r"'data'.*\(8, 8, 1\).*wide.*\(8, 9, 1\)"),
        ("dynamic --data nowhere.npz", "'data'.*nowhere.npz"),
        ("grey --measures neighbours", "'measures'.*labels"),
        ("dynamic --data half.npz --measures neighbours", "'measures'.*labels"),
        ("dynamic --split train --images 1 --measures neighbours", "'(measures|images)'"),
        ("dynamic --measures nonsense", "'measures'.*elbo, gap, likelihood.*nonsense"),
        ("dynamic --num-samples 0", "'num_samples'.*num_samples=0"),
        ("dynamic --batch-size -1", "'batch_size'.*batch_size=-1"),
        ("dynamic --images 0", "'images'.*images=0"),
        ("dynamic --seed -1", "'seed'.*seed=-1"),
        ("dynamic --split nonsense", "'split'.*'test' or 'train'.*'nonsense'"),
        ("dynamic --binarize nonsense", "'binarize'.*'dynamic' or 'fixed'.*'nonsense'"),
        ("dynamic --images many", "--images.*'many'"),
        ("dynamic --data bars.npz --dataset digits", "--dataset.*not allowed with.*--data"),
        ("nowhere", "'run'.*'nowhere'.*vae-tf train"),
        ("taken", "'run'.*'taken'.*vae-tf train"),
        ("unfinished", r"'run'.*model\.keras.*'unfinished'.*--resume"),
        ("dynamic --out taken", "'out'.*does not exist yet.*'taken'"),
        ("dynamic --out note", "'out'.*'note'"),
        ("dynamic --out note/below", "'out'.*note/below"),
        ("grey --measures likelihood", "'binarize'.*grey values.*--binarize dynamic"),
        ("grey --num-samples 10", "'binarize'.*grey values.*--num-samples"),
        ("dynamic --binarize none --num-samples 10", "'binarize'.*grey values"),
        ("fixed --binarize none --num-samples 10", "'binarize'.*grey values"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(arguments, message, capsys):
    before = listing()
    try:
        status = evaluate(*arguments.split())
    except SystemExit as error:  # by the parser
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert "vae-tf evaluate: error: " in err
    assert re.search(message, err, re.S)
    assert listing() == before


def interrupt(monkeypatch, images):
    """Ctrl-C when so many images of the log-likelihood are done."""

    def show(name, done, total):
        if (name, done) == ("likelihood", images):
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.evaluate, "progress", lambda: contextlib.nullcontext(show))


def test_ctrl_c_reports_the_images_done_so_far(place, monkeypatch, capsys):
    interrupt(monkeypatch, 12)
    options = ("--num-samples", 50, "--batch-size", 6, "--out", "stopped")
    assert evaluate("dynamic", *options) == 130
    out, err = capsys.readouterr()
    assert "Interrupted. The log-likelihood is of 12 of 20 images." in err
    assert "Traceback" not in out + err
    found, whole = metrics(place / "stopped"), metrics(place / "dynamic/evaluation")
    assert names("stopped") == FILES | PICTURES
    x = data.binarize(data.load(data="bars.npz"), seed=0).x_test
    expected = evaluation.log_likelihood(trained("dynamic"), x, 50, seed=0).per_image[:12]
    assert found["likelihood"]["images"] == 12
    assert agrees(found["likelihood"], expected)
    for name in ("elbo", "latent", "reconstruction", "neighbours"):
        assert flat(found[name]) == pytest.approx(flat(whole[name]), rel=1e-5)
    assert "of the first 12 of 20 images only" in (place / "stopped/report.md").read_text()


def test_ctrl_c_before_the_first_images_leaves_nothing(monkeypatch, capsys):
    interrupt(monkeypatch, 0)
    before = listing()
    assert evaluate("dynamic", "--num-samples", 5) == 130
    assert "Interrupted." in capsys.readouterr().err
    assert listing() == before
