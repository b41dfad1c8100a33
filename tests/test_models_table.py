"""The README's table of models: each command is run, on the embedded digits, as it stands there."""

import re
import shlex

import pytest
from helpers import REPOSITORY

import vae_tf
from vae_tf import cli
from vae_tf.export.verify import verify
from vae_tf.training.fields import MODELS

TABLE = (REPOSITORY / "README.md").read_text().partition("\n## The models\n")[2]
ROWS = re.findall(r"^\| `(\w+)` \|.*\| `(vae-tf train[^`]*)` \|$", TABLE, re.MULTILINE)


def test_it_has_every_model():
    assert [name for name, _ in ROWS] == list(MODELS.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), ROWS)
def test_its_command_trains_the_model_and_what_follows_takes_it(
    name, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*shlex.split(command)[1:], "--steps", "60", "--run", "run"]) == 0
    record, model = vae_tf.load_run("run")
    assert type(model).__name__ == name == record["model"]
    shown = capsys.readouterr().out
    assert "reconstruct.png" in shown
    assert ("generated.png" in shown) == (model.sample_prior is not None)
    assert cli.main(["evaluate", "run", "--images", "20", "--out", "report"]) == 0
    assert cli.main(["export", "run", "--out", "models", "--with-encoder"]) == 0
    assert verify(tmp_path / "models", tmp_path / "run").passed
    if model.sample_prior is None:
        return
    label = ["--label", "3"] if name == "ConditionalVAE" else []
    assert (
        cli.main(["generate", "run", "--num", "4", "--seed", "1", "--out", "grid.png", *label]) == 0
    )
    assert (tmp_path / "grid.png").stat().st_size > 300
