"""What training and evaluation show: a live bar on a terminal, plain lines elsewhere."""

import io
import re
import types

import numpy as np
import pytest

from vae_tf.cli.evaluate import progress
from vae_tf.training.progress import Progress

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the terminal's cursor


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")


def a_model(steps_made=0):
    return types.SimpleNamespace(steps_made=steps_made)


def terms(step, count):
    """Those of `count` steps that end with `step`: what an execution gives."""
    numbers = np.arange(step - count + 1, step + 1)
    return {
        "loss": 100 / numbers,
        "rate": 3.0 + 0 * numbers,
        "kl_by_dimension": np.ones((count, 4)),
    }


def trained(stream, steps=(2, 4, 20), end=True, of=20):
    """The callback after executions that ended with these steps."""
    hook, model = Progress(of, 50, stream), a_model()
    hook.set_model(model)
    hook.on_train_begin()
    for step in steps:
        seen, model.steps_made = model.steps_made, step
        hook.on_steps_end(types.SimpleNamespace(terms=terms(step, step - seen)))
        hook.on_train_batch_end(0, {"loss": -1.0})  # Keras's running mean over the epoch
    if end:
        hook.on_train_end()
    return hook


def words(stream):
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", stream.getvalue())


def test_elsewhere_a_line_for_each_tenth_has_every_term_in_order():
    stream = io.StringIO()
    trained(stream, [2, 3, 4, 20])
    first, *lines = stream.getvalue().splitlines()
    assert first == "Compiling the training loop ..."
    assert [line.split("  ")[0] for line in lines] == ["step 2/20", "step 4/20", "step 20/20"]
    assert lines[0] == "step 2/20  loss 75.00  rate 3.00"  # compiling is no speed
    assert re.fullmatch(r"step 4/20  loss 52\.08  rate 3\.00  \d+ images/s  \d+ s left", lines[1])


def test_the_terms_are_means_of_the_last_hundred_steps():
    stream = io.StringIO()
    trained(stream, [50, 250, 300], of=300)
    expected = sum(100 / step for step in range(201, 301)) / 100
    assert f"step 300/300  loss {expected:.2f}  " in stream.getvalue()


def test_on_a_terminal_one_line_is_drawn_again():
    stream = Terminal()
    trained(stream)
    text = words(stream)
    assert "Compiling the training loop ..." in text
    assert re.search(r"step 20/20.*loss 17\.99  rate 3\.00  \d+ images/s  0 s left", text)
    assert text.rstrip("\n").count("\n") == 0
    assert stream.getvalue().count(HIDE) == stream.getvalue().count(SHOW) == 1


def test_a_training_that_ends_with_an_error_leaves_the_terminal_as_it_was():
    stream = Terminal()
    hook = trained(stream, end=False)
    assert SHOW not in stream.getvalue()
    hook.stop()
    hook.stop()
    assert stream.getvalue().count(SHOW) == 1


def test_a_resumed_training_begins_where_it_was():
    hook = Progress(20, 50, stream := Terminal())
    hook.set_model(a_model(steps_made=12))
    hook.on_train_begin()
    hook.stop()
    assert "step 12/20" in words(stream)


def test_nothing_of_it_belongs_in_a_checkpoint():
    assert Progress.transient


# Evaluation.


def shown(stream):
    with progress(stream) as show:
        show("elbo", 0, 1)
        for done in range(0, 40, 2):
            show("likelihood", done, 40)
        show("pictures", 0, 1)


def test_evaluation_elsewhere_has_a_line_for_each_tenth():
    shown(stream := io.StringIO())
    first, *lines, last = stream.getvalue().splitlines()
    assert (first, lines[0], last) == ("elbo ...", "likelihood ...", "pictures ...")
    assert [line.split("  ")[0] for line in lines[1:]] == [
        f"likelihood: {done}/40 images" for done in range(4, 40, 4)
    ]


def test_evaluation_on_a_terminal_is_one_line_that_goes_away():
    shown(stream := Terminal())
    text = words(stream)
    for name in ("elbo", "pictures"):
        assert name in text
    assert "0/1" not in text  # of a measure that is not counted in images
    assert stream.getvalue().count(HIDE) == stream.getvalue().count(SHOW) == 1
    assert not re.search(r"\S", text.rsplit("pictures", 1)[1].rsplit("\r", 1)[1])
