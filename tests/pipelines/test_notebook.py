"""The notebook runs from top to bottom on a finished run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "explore_run.ipynb"


def test_notebook_shows_a_finished_run(finished_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKMIX_EXPERIMENT", "one")
    monkeypatch.setenv("KEDRO_ENV", "tiny")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(finished_project)}}).execute()
    text = "".join(
        output.get("text", "") + "".join(output.get("data", {}).get("text/html", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert all(name in text for name in ("code", "prose", "verse", "quiz", "riddle", "standard error"))


def test_notebook_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
