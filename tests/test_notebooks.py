"""Every notebook: executed afresh with few steps, and its saved outputs against that execution.

After a change of a notebook,  python tests/test_notebooks.py  executes every one in full and saves it with
its outputs, but without what TensorFlow writes to standard error.
"""

import itertools
import os
import re

import nbformat
import pytest
from helpers import REPOSITORY
from nbclient import NotebookClient

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
SLOW = {"03_the_family", "04_autoencoders_and_their_uses"}  # they train many models
IMAGES = {"01_vae": 11}  # at least so many pictures; one in a notebook that is not named here
LARGEST = 1_500_000  # bytes
PATH_OF_A_MACHINE = re.compile(r"site-packages|(?<![\w.])/(home|root|tmp|usr|var|work|Users)/")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def path(request):
    return request.param


@pytest.fixture
def saved(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell shows: "text", or the types of a rich output. Standard error is left out."""
    shown = [
        "text" if output.output_type == "stream" else " ".join(sorted(output.get("data", {})))
        for output in cell.outputs
        if output.get("name") != "stderr"
    ]
    return [kind for kind, _ in itertools.groupby(shown)]  # one print may come in two parts


def execute(notebook, folder, **environment):
    """Run all cells in `folder`; raises CellExecutionError, with the traceback, if one fails."""
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, **environment})


@pytest.mark.slow
def test_runs_and_shows_what_the_saved_file_shows(path, saved, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, tmp_path, VAE_TF_FAST="1", IPYTHONDIR=str(tmp_path / "ipython"))
    for ran, kept in zip(code_cells(notebook), code_cells(saved), strict=True):
        assert kinds(ran) == kinds(kept), f"saved with other outputs:\n{kept.source}"
    unseen = [o.text for c in code_cells(notebook) for o in c.outputs if o.get("name") == "stderr"]
    assert not [text for text in unseen if "Warning" in text], "the saved outputs would hide it"
    left = {found.name for found in tmp_path.iterdir()} - {"ipython"}
    assert not left, "a notebook leaves no files where it is run"


def test_was_saved_after_one_run_from_the_top(saved):
    nbformat.validate(saved)
    assert saved.metadata.kernelspec.name == "python3"
    cells = code_cells(saved)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_saved_outputs_are_clean(path, saved):
    outputs = [output for cell in code_cells(saved) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) >= IMAGES.get(path.stem, 1)
    texts = [output.get("text", "") for output in outputs]
    texts += [output.get("data", {}).get("text/plain", "") for output in outputs]
    assert not [text for text in texts if PATH_OF_A_MACHINE.search(text)]
    assert path.stat().st_size < LARGEST


def test_imports_and_defines_no_models(saved):
    for cell in code_cells(saved):
        assert "class " not in cell.source, cell.source


def save_executed(path):
    """Execute in full where the notebook lies, and write it back with clean outputs."""
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.parent, VAE_TF_FAST="0")
    for cell in code_cells(notebook):
        kept = []
        for output in cell.outputs:
            if output.get("name") == "stdout" and kept and kept[-1].get("name") == "stdout":
                kept[-1].text += output.text
            elif output.get("name") != "stderr":
                kept.append(output)
        cell.outputs = kept
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for notebook_path in NOTEBOOKS:
        save_executed(notebook_path)
