"""Several devices: one step on them is one step of one device on the whole batch."""

import pathlib

import pytest
from helpers import run_python

SCRIPT = pathlib.Path(__file__).with_name("several_devices.py")


@pytest.mark.slow
@pytest.mark.parametrize("cases", ["main", "all"])
def test_several_devices_train_as_one_does(cases):
    """Weights, each step's record and the history, to what float32 adds up in another order."""
    code = f"import sys, runpy; sys.path.insert(0, {str(SCRIPT.parent)!r}); "
    code += f"sys.argv[1:] = [{cases!r}]; runpy.run_path({str(SCRIPT)!r})"
    lines = [line.split() for line in run_python(code).splitlines()]
    apart = {f"{case} on {num}": float(value) for case, num, value in lines}
    assert len(apart) >= 3
    assert {case: value for case, value in apart.items() if not value < 2e-5} == {}
