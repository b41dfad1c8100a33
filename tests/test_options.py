"""A command's options are a configuration's fields: the parser, the values and the README."""

import argparse
import dataclasses
import pathlib
import re

import pytest
from helpers import REPOSITORY

from vae_tf import cli, likelihoods, options
from vae_tf.errors import check_positive_int
from vae_tf.training import TrainConfig
from vae_tf.training.fields import LIKELIHOODS


@dataclasses.dataclass(frozen=True)
class Config:
    run: str = options.argument("a run", metavar="RUN")
    name: str = options.option("digits", "a name", metavar="NAME", group="source")
    path: str | None = options.option(None, "a path of 100 %", group="source")
    num_steps: int = options.option(3, "steps", parse=int, metavar="N", check=check_positive_int)
    how: str = options.option("fast", "which way", choices=("fast", "slow"))
    rate: float | None = options.option(None, "a rate", parse=float, default_text="the recipe's")
    widths: tuple[int, ...] = options.option((4,), "widths", parse=options.integers)
    parts: tuple[str, ...] | None = options.option(None, "parts", parse=options.names)
    log: bool = options.option(False, "keep a log")

    def __post_init__(self):
        options.check_fields(self)


def parser():
    made = argparse.ArgumentParser("test")
    options.add_options(made, Config)
    return made


def parsed(text):
    return options.from_args(Config, parser().parse_args(text.split()))


def test_what_is_not_given_has_the_fields_default():
    assert parsed("here") == Config("here")
    args = parser().parse_args(["here", "--num-steps", "3"])
    assert options.given(Config, args) == {"run": "here", "num_steps": 3}


def test_what_is_given_is_parsed_to_the_fields_type():
    text = "here --path p --num-steps 7 --how slow --rate 1e-3 --widths 16,8 --parts a,b --log"
    expected = {
        "run": "here", "name": "digits", "path": "p", "num_steps": 7, "how": "slow", "rate": 0.001,
        "widths": (16, 8), "parts": ("a", "b"), "log": True,
    }  # fmt: skip
    assert dataclasses.asdict(parsed(text)) == expected
    assert parsed("here --widths none").widths == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the following arguments are required: RUN"),
        ("here --num-steps two", "--num-steps: invalid int value: 'two'"),
        ("here --widths a,b", "--widths: expected integers .*'a,b'"),
        ("here --name a --path b", "--path: not allowed with argument --name"),
    ],
)
def test_text_that_cannot_be_parsed_is_refused_by_the_parser(text, message, capsys):
    with pytest.raises(SystemExit):
        parsed(text)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "'num_steps'.*positive integer"),
        ({"num_steps": None}, "'num_steps'.*positive integer"),  # None is not its default
        ({"how": "best"}, "'how'.*'fast' or 'slow'.*'best'"),
    ],
)
def test_a_value_is_checked_by_its_field(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Config("here", **change)


def test_the_help_says_each_default():
    text = " ".join(parser().format_help().split())
    for part in (
        "RUN a run",
        "--name NAME a name (default: digits)",
        "--path PATH a path of 100 % (default: none)",
        "--how fast|slow which way (default: fast)",
        "--rate RATE a rate (default: the recipe's)",
        "--log keep a log",
    ):
        assert part in text


# The commands' own.


def actions(command):
    (commands,) = (action for action in cli.build_parser()._actions if action.dest == "command")
    return commands.choices[command]._actions


def test_every_field_of_a_training_is_an_option_of_the_command():
    fields = {options.flag(field.name) for field in dataclasses.fields(TrainConfig)}
    taken = {action.option_strings[-1] for action in actions("train")}
    assert taken == fields | {"--help", "--resume"}


def test_the_readme_has_each_option_of_training_with_its_default_and_its_help():
    text = pathlib.Path(REPOSITORY / "README.md").read_text()
    table = text.split("| option of `train` |")[1].split("\n\n")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()[2:]]
    written = [tuple(cell.strip().strip("`").replace("\\|", "|") for cell in row) for row in rows]
    expected = []
    for action in actions("train"):
        if action.dest not in ("help", "resume"):
            flag = " ".join(filter(None, [action.option_strings[-1], action.metavar]))
            words = action.help.replace("%%", "%")
            match = re.fullmatch(r"(.*) \(default: (.*)\)", words) or re.fullmatch("(.*)()", words)
            expected.append((flag, match[2] or "off", match[1]))
    assert written == expected


def test_the_likelihoods_of_the_command_are_those_that_there_are():
    """Two lists: the command's help does without Keras."""
    assert set(LIKELIHOODS) == set(likelihoods.LIKELIHOODS)
