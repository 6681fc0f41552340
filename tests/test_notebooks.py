"""The notebooks run from their first cell to their last, and show tables and pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import install as install_kernel
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """This very Python as a kernel, which the user's folders don't hear of."""
    folder = tmp_path_factory.mktemp("jupyter")
    install_kernel(prefix=str(folder), kernel_name="here")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JUPYTER_PATH", str(folder / "share" / "jupyter"))
        yield "here"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_promises(path: Path, kernel: str, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are made, not kept"
    client = NotebookClient(
        notebook, timeout=240, kernel_name=kernel, resources={"metadata": {"path": str(tmp_path)}}
    )  # fmt: skip
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = [kind for output in shown for kind in output.get("data", ())]
    assert kinds.count("image/png") >= 3
    assert kinds.count("text/html") >= 3
    assert not [output for output in shown if output.output_type == "stream" and output.name == "stderr"], "no noise"
