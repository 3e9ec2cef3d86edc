"""Every notebook runs from its first cell to its last, and shows media before and after."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def test_there_is_one() -> None:
    assert "image" in NOTEBOOKS


SHORTER = {"prompts=24": "prompts=4", "steps=20": "steps=2", "steps=16": "steps=2", "n=16": "n=4"}
"""What most notebooks say, and what is run of it in CI."""


def execute(name: str, folder: Path, *, shorter: dict[str, str]) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for said, run in shorter.items():
            cell.source = cell.source.replace(said, run)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    shown = [
        output.get("data", {}).get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    figures = [text.count("<figure") for text in shown if "<figure" in text]
    assert len(figures) == 2
    assert figures[1] == 2 * figures[0], "before, and before beside after"


@pytest.mark.pages
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_with_fewer_steps(name: str, tmp_path: Path) -> None:
    execute(name, tmp_path, shorter=SHORTER)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    execute(name, tmp_path, shorter={})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
