"""The command `vae-tf`, as a user of a shell meets it."""

import importlib.metadata
import json
import pathlib
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import threading
import time

import numpy as np
import pytest
from helpers import blobs
from PIL import Image

from vae_tf import cli, plots, training
from vae_tf.applications.command import APPLICATIONS
from vae_tf.training import runs

pytestmark = pytest.mark.xla  # as in a shell, with which some of the tests compare

COMMAND = str(pathlib.Path(sysconfig.get_path("scripts")) / "vae-tf")
SMALL = ("--hidden-units", "16", "--latent-dim", "2")
FILES = {"config.json", "model.keras", "history.csv"}
PICTURES = {f"{name}.png" for name in ("reconstruct", "generated", "train_process")}
PLANE = {"latent_plane.png", "encodings.png"}
OPTIONS = ["dataset", "data", "recipe", "latent-dim", "hidden-units", "batch-size", "epochs"]
OPTIONS += ["steps", "learning-rate", "seed", "run"]


def shell(*arguments, cwd=None):
    return subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


def config(run):
    return json.loads((pathlib.Path(run) / "config.json").read_text())


def names(folder):
    return {path.name for path in pathlib.Path(folder).iterdir()}


def pictures(folder):
    return {name for name in names(folder) if name.endswith(".png")}


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def listing(folder="."):
    """Every file below `folder` with its content."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """What one training in a shell leaves: the process, and the directory it ran in."""
    cwd = tmp_path_factory.mktemp("shell")
    return shell("train", "--steps", 30, *SMALL, cwd=cwd), cwd


@pytest.fixture
def run(first):
    """The same run, in a directory of this test's own."""
    name = pathlib.Path("runs/digits_default_z2")
    shutil.copytree(first[1] / name, name)
    return name


# Help.


def test_help_is_complete():
    text = shell("--help")
    assert (text.returncode, text.stderr) == (0, "")
    commands = ["train", "plot", "evaluate", "export", "verify-export", "serve", "generate"]
    commands += [*(row.name for row in APPLICATIONS), "held-out", "decompress"]
    assert re.findall(r"^    ([\w-]+)(?: +\S|$)", text.stdout, re.M) == commands
    examples = [
        line.strip().split("   ")[0] for line in text.stdout.split("examples:")[1].split("\n")
    ]
    examples = [shlex.split(line) for line in examples if line]
    assert {words[1] for words in examples} == {*commands} - {"plot"}
    for words in examples:
        assert words[0] == "vae-tf"
        assert cli.build_parser().parse_args(words[1:]).command == words[1]


def test_the_version_is_that_of_the_installed_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"vae-tf {importlib.metadata.version('vae_tf')}\n"


def test_help_on_training_explains_every_option():
    text = shell("train", "--help")
    assert (text.returncode, text.stderr) == (0, "")
    assert set(OPTIONS) <= set(re.findall(r"^  --([a-z-]+) ", text.stdout, re.M))
    for name, recipe in training.RECIPES.items():
        (line,) = re.findall(rf"^  {name} +(.*)", text.stdout, re.M)
        assert float(re.search(r"Adam at ([\de.-]+\d)", line).group(1)) == recipe.learning_rate


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", COMMAND, "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.split("|")[-1].strip() for line in text.stderr.splitlines()}
    assert "vae_tf.cli" in modules
    packages = {module.split(".")[0] for module in modules}
    assert not packages & {"tensorflow", "keras", "matplotlib", "numpy", "sklearn", "PIL"}


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        shell("--help")
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.5


# Training.


def test_training_leaves_a_run(first):
    process, cwd = first
    assert process.returncode == 0, process.stderr
    assert names(cwd) == {"runs"}
    run = cwd / "runs" / "digits_default_z2"
    assert names(run) >= FILES
    assert pictures(run) == PICTURES | PLANE
    record = config(run)
    assert record["status"] == "completed"
    assert record["steps"] == 30
    facts = {"name": "digits", "image_shape": [8, 8, 1], "train": 1437, "test": 360}
    assert facts.items() <= record["data"].items()
    asked = {"dataset": "digits", "recipe": "default", "latent_dim": 2, "hidden_units": [16]}
    assert asked.items() <= record["config"].items()
    history = runs.load_history(run)
    np.testing.assert_array_equal(history["step"], np.arange(1, 31))
    _, model = runs.load_run(run)
    assert (model.latent_dim, model.hidden_units) == (2, (16,))
    assert model.optimizer.iterations == 30


def test_training_says_what_happens_and_nothing_else(first):
    process, _ = first
    head = process.stdout.splitlines()[:2]
    assert head[0] == "digits: 1437 training and 360 test images of 8×8×1"
    assert head[1] == (
        "Training 30 steps of 100 images, recipe default, into runs/digits_default_z2"
    )
    for line in process.stderr.splitlines():  # TensorFlow keeps quiet
        assert re.match(r"Compiling the training loop|step \d+/30  loss \d+\.\d\d", line)
    assert process.stderr.splitlines()[-1].startswith("step 30/30 ")


def test_the_summary_is_true(first):
    process, cwd = first
    test = config(cwd / "runs" / "digits_default_z2")["test"]
    for label, name in (
        ("Test −ELBO", "loss"),
        ("reconstruction", "reconstruction_loss"),
        ("KL", "kl_loss"),
    ):
        (value,) = re.findall(rf"^ *{label} +([\d.]+)", process.stdout, re.M)
        assert value == f"{test[name]:.2f}"
    paths = re.findall(r"^  (runs/\S+)$", process.stdout, re.M)
    assert set(paths) >= {f"runs/digits_default_z2/{n}" for n in FILES | PICTURES | PLANE}
    assert all((cwd / path).is_file() for path in paths)


def test_the_commands_that_come_next_work(first, run):
    lines = re.findall(r"^  vae-tf (.+)$", first[0].stdout, re.M)
    assert [line.split()[0] for line in lines] == ["generate", "evaluate", "export"]
    for line in lines:
        assert str(run) in line
        assert cli.main(shlex.split(line)) == 0
    assert pathlib.Path("grid.png").is_file()
    assert pathlib.Path("saved_models/digits_default_z2/1/saved_model.pb").is_file()


@pytest.mark.slow
def test_one_seed_is_one_run(run, monkeypatch, capsys):
    """In another process, and under the next free name; another seed is another run."""
    monkeypatch.setattr(plots, "draw", lambda *args: [])
    assert cli.main(["train", "--steps", "30", *SMALL, "--seed", "0"]) == 0
    again = pathlib.Path(f"{run}_2")
    assert f"into {again}" in capsys.readouterr().out
    assert (again / "history.csv").read_bytes() == (run / "history.csv").read_bytes()
    assert config(again)["test"] == config(run)["test"]
    weights = [runs.load_run(path)[1].get_weights() for path in (run, again)]
    for old, new in zip(*weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert cli.main(["train", "--steps", "30", *SMALL, "--seed", "1", "--run", "other"]) == 0
    theirs, ours = runs.load_history("other"), runs.load_history(run)
    assert (theirs["loss"] != ours["loss"]).all()


def test_every_option_is_taken(capsys):
    folder = pathlib.Path("photos")
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for index, image in enumerate(blobs(10, seed=ord(label))):
            Image.fromarray(image).save(folder / label / f"{index}.png")
    options = (
        "--recipe original --epochs 3 --batch-size 9 --learning-rate 0.01 --hidden-units none "
        "--latent-dim 3 --seed 5 --run here/it"
    )
    assert cli.main(["train", "--data", "photos", *options.split()]) == 0
    run = pathlib.Path("here/it")
    assert names(run) >= FILES
    assert pictures(run) == PICTURES | {"traversal.png", "encodings.png"}
    record, model = runs.load_run(run)
    expected = {
        "data": str(folder.resolve()), "recipe": "original", "latent_dim": 3, "hidden_units": [],
        "batch_size": 9, "epochs": 3, "steps": None, "learning_rate": 0.01, "seed": 5,
    }  # fmt: skip
    assert expected.items() <= record["config"].items()
    assert record["data"]["name"] == "photos"
    assert (record["data"]["train"], record["data"]["test"]) == (18, 2)
    assert record["steps"] == model.optimizer.iterations == 6  # 18 images make 2 batches of 9
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)  # held
    assert [w.shape for w in model.decoder.weights] == [(3, 64), (64,)]  # no hidden layer
    history = runs.load_history(run)
    np.testing.assert_array_equal(history["beta"], np.ones(6))  # no warm-up
    np.testing.assert_array_equal(history["epoch"], [1, 1, 2, 2, 3, 3])
    assert "photos: 18 training and 2 test images" in capsys.readouterr().out
    plots.generated(model.generate(100, seed=5)).savefig("own.png", dpi=120)
    np.testing.assert_array_equal(pixels(run / "generated.png"), pixels("own.png"))


@pytest.mark.slow
def test_an_archive_is_taken_and_the_default_recipe_warms_up(monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda *args: [])
    np.savez("bars.npz", x_train=blobs(40), x_test=blobs(8, seed=1))
    command = "train --data bars.npz --hidden-units 8,4 --latent-dim 2 --steps 10"
    assert cli.main(command.split()) == 0
    record, model = runs.load_run("runs/bars_default_z2")
    assert (record["data"]["train"], record["data"]["test"]) == (40, 8)
    assert record["batch_size"] == 40  # all, where there are fewer than 100
    assert record["learning_rate"] == 2e-3
    assert float(model.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)  # decayed
    assert [w.shape for w in model.encoder.weights[:3]] == [(64, 8), (8,), (8, 4)]
    beta = runs.load_history("runs/bars_default_z2")["beta"]
    np.testing.assert_allclose(beta, np.minimum(1, np.arange(1, 11) / 3), rtol=1e-6)


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is(capsys):
    # A shell in the background hands on that SIGINT is ignored: the wrapper sets it right.
    wrapper = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    arguments = ["train", "--steps", "100000", *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-c", wrapper, COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    with process:
        for line in process.stderr:
            if line.startswith("step "):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate()
    watchdog.cancel()
    run = "runs/digits_default_z2"
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert re.search(rf"Interrupted\. Saved .* in {run} .*\nNext: .*vae-tf plot {run}\n", err)
    record, model = runs.load_run(run)
    steps = int(model.optimizer.iterations)
    assert 0 < steps < 100_000
    assert record["status"] == f"interrupted after {steps} of 100000 steps"
    assert runs.load_history(run)["step"][-1] == steps
    assert cli.main(["plot", run]) == 0
    assert set(capsys.readouterr().out.split()) == {f"{run}/{name}" for name in PICTURES | PLANE}


# What comes after training.


def test_plot_draws_the_same_pictures_again(run, capsys):
    drawn = {name: pixels(run / name) for name in PICTURES | PLANE}
    for name in drawn:
        (run / name).unlink()
    assert cli.main(["plot", str(run)]) == 0
    assert set(capsys.readouterr().out.split()) == {str(run / name) for name in drawn}
    for name, picture in drawn.items():
        np.testing.assert_array_equal(pixels(run / name), picture)


def test_export_counts_versions_and_generate_takes_the_newest(run, capsys):
    name = run.name
    assert cli.main(["export", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"saved_models/{name}/1:")
    assert f"vae-tf verify-export saved_models/{name} --against {run}" in out
    assert f"vae-tf serve saved_models/{name}" in out
    _, model = runs.load_run(run)
    for weight in model.decoder.weights:
        weight.assign(-weight)
    model.save(run / "model.keras")
    shutil.copytree(run, "changed")
    assert cli.main(["export", "changed", "--out", f"saved_models/{name}"]) == 0
    assert names(f"saved_models/{name}") == {"1", "2"}
    found = {}
    for source in ("changed", f"saved_models/{name}", f"saved_models/{name}/1"):
        assert cli.main(["generate", source, "--num", "9", "--seed", "4", "--out", "a.png"]) == 0
        found[source] = pixels("a.png")
    np.testing.assert_array_equal(found[f"saved_models/{name}"], found["changed"])
    assert not np.array_equal(found[f"saved_models/{name}/1"], found["changed"])


def test_a_run_and_its_saved_model_generate_one_picture(run, capsys):
    assert cli.main(["export", str(run), "--out", "served", "--version", "7"]) == 0
    capsys.readouterr()
    _, model = runs.load_run(run)
    expected = np.rint(255 * model.generate(4, seed=3))[..., 0]  # digits have 8 by 8 pixels
    for source in (run, "served/7", "served"):
        arguments = ["--num", "4", "--seed", "3", "--out", "made.png"]
        assert cli.main(["generate", str(source), *arguments]) == 0
        assert capsys.readouterr().out == "made.png\n"
        drawn = pixels("made.png")
        rows = [[drawn[y : y + 8, x : x + 8] for x in (0, 9)] for y in (0, 9)]
        np.testing.assert_array_equal(np.reshape(rows, expected.shape), expected)
    assert cli.main(["generate", str(run), "--num", "4", "--seed", "4"]) == 0
    assert not np.array_equal(pixels("generated.png"), pixels("made.png"))


# What cannot be used.


def refused(capsys, *arguments):
    """The message on standard error of a call that gives 2 and leaves everything as it was."""
    before = listing()
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # by the parser
        status = error.code
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert f"vae-tf {arguments[0]}: error: " in err
    assert listing() == before
    return err


def test_a_refusal_in_a_shell_is_one_line(tmp_path):
    process = shell("train", "--latent-dim", 0)
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("vae-tf train: error: ")
    assert "'latent_dim'" in line
    assert "latent_dim=0" in line
    assert listing() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dataset mnsit", "'dataset'.*Did you mean 'mnist'"),
        ("--dataset mnist:9.9.9", "'dataset'"),
        ("--latent-dim 0", "'latent_dim'.*latent_dim=0"),
        ("--latent-dim two", "--latent-dim.*'two'"),
        ("--hidden-units 0", "'hidden_units'.*hidden_units=0"),
        ("--hidden-units 16,-1", "'hidden_units'.*hidden_units=-1"),
        ("--hidden-units a,b", "--hidden-units.*'a,b'"),
        ("--batch-size 0", "'batch_size'.*batch_size=0"),
        ("--batch-size 1438", "'batch_size'.*1437 training images.*batch_size=1438"),
        ("--steps 0", "'steps'.*steps=0"),
        ("--epochs -1", "'epochs'.*epochs=-1"),
        ("--steps 5 --epochs 5", "--epochs.*not allowed with.*--steps"),
        ("--dataset mnist --data bars.npz", "--data.*not allowed with.*--dataset"),
        ("--learning-rate 0", r"'learning_rate'.*learning_rate=0\.0"),
        ("--learning-rate nan", "'learning_rate'.*learning_rate=nan"),
        ("--learning-rate inf", "'learning_rate'.*learning_rate=inf"),
        ("--recipe best", "'recipe'.*'original' or 'default'.*'best'"),
        ("--seed -1", "'seed'.*seed=-1"),
        (f"--seed {2**32}", "'seed'"),
        ("--run taken", "'run'.*'taken'"),
        ("--run taken/notes.txt/below", "'run'.*taken"),
        ("--data nowhere.npz", "'data'.*nowhere.npz.*does not exist"),
        ("--data taken", "'data'.*'taken', which holds no images, but 'notes.txt'"),
        ("--data loud.npz", r"loud\.npz: x.*floats in \[0, 1\].*from 0 to 2.*Divide by"),
        ("--data holes.npz", r"holes\.npz: x.*1 NaN.*index \(3, 0, 0\)"),
        ("--data bars.npz --batch-size 10", "'batch_size'.*9 training images"),
    ],
)
def test_bad_options_of_train(options, message, capsys):
    x = np.zeros((10, 4, 4))
    x[:, 1, 1] = 0.3
    np.savez("bars.npz", x=x)
    np.savez("loud.npz", x=x + 1.7 * (x > 0))
    x[3, 0, 0] = np.nan
    np.savez("holes.npz", x=x)
    pathlib.Path("taken").mkdir()
    pathlib.Path("taken/notes.txt").write_text("hi")
    assert re.search(message, refused(capsys, "train", *options.split()), re.S)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("plot nowhere", "'run'.*'nowhere'.*vae-tf train"),
        ("plot notes", "'run'.*'notes'"),
        ("export nowhere", "'run'.*'nowhere'"),
        ("export notes", "'run'.*'notes'"),
        ("generate nowhere", "'source'.*'nowhere'"),
        ("generate notes", "'source'.*'notes'"),
        ("export RUN --out served --version 1", "'version'.*served/1.*never overwritten"),
        ("export RUN --version 0", "'version'.*version=0"),
        ("export RUN --out notes/a.txt", "'out'.*a.txt"),
        ("export RUN --out notes/a.txt/below", "'out'.*a.txt"),
        ("generate RUN --num 0", "'num'.*num=0"),
        ("generate RUN --seed -1", "'seed'.*seed=-1"),
        ("generate RUN --out a.txt", r"'out'.*\.png.*'a\.txt'"),
        ("generate RUN --out nowhere/a.png", "'out'.*directory that exists.*nowhere/a.png"),
        ("generate RUN --out folder.png", "'out'.*folder.png"),
    ],
)
def test_bad_calls_after_training(options, message, run, capsys):
    pathlib.Path("notes").mkdir()
    pathlib.Path("notes/a.txt").write_text("hi")
    pathlib.Path("folder.png").mkdir()
    pathlib.Path("served/1").mkdir(parents=True)
    arguments = options.replace("RUN", str(run)).split()
    assert re.search(message, refused(capsys, *arguments), re.S)


@pytest.mark.parametrize("command", ["plot", "export", "generate"])
@pytest.mark.parametrize("file", ["config.json", "model.keras"])
def test_a_damaged_run_is_named(command, file, run, capsys):
    (run / file).write_text("{")
    assert re.search(rf"'(run|source)'.*{run.name}", refused(capsys, command, run))


@pytest.mark.parametrize("file", ["history.csv", "model.keras"])
def test_a_run_that_lacks_a_file_is_named(file, run, capsys):
    (run / file).unlink()
    assert re.search(rf"'run'.*{run.name}.*", refused(capsys, "plot", run))
