"""The notebook runs from top to bottom, quietly, and says kindly when there is nothing to show."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "explore_run.ipynb"


def shown(folder: Path) -> tuple[str, str]:
    """Run the notebook in a folder, and return what it shows and what it complains of."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(
        output.get("text", "")
        + "".join(output.get("data", {}).get(f"text/{kind}", "") for kind in ("html", "markdown"))
        for output in outputs
        if output.get("name") != "stderr"
    )
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return f"{said}\n{pictures} pictures", "".join(o["text"] for o in outputs if o.get("name") == "stderr")


def test_notebook_shows_why_a_finished_run_decided_as_it_did(
    finished_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKMIX_EXPERIMENT", "one")
    monkeypatch.delenv("TIKMIX_OTHER", raising=False)
    text, complaints = shown(finished_project)
    assert "The run: one." in text
    assert "Round 0" in text
    assert "0 pictures" not in text
    assert "Spearman of predicted and measured" in text or "has no verdict" in text
    assert complaints == ""


def test_without_a_run_the_notebook_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    monkeypatch.delenv("TIKMIX_EXPERIMENT", raising=False)
    text, complaints = shown(tmp_path)
    assert "There is no finished run" in text
    assert "make try" in text
    assert complaints == ""


def test_notebook_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
