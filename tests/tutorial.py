"""Executes ``docs/tutorial.ipynb``: ``python -m tests.tutorial`` writes its outputs into it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parent.parent
TUTORIAL = REPOSITORY / "docs" / "tutorial.ipynb"
_PACKAGES = "adapter4rec", "Downstream", "Pretraining"


def execute(folder: Path, epochs: int | None = None, more: Sequence[str] = ()) -> nbformat.NotebookNode:
    """Execute the tutorial in a copy of the checkout, from its folder ``docs``.

    Args:
        folder: an empty folder for the copy; the run folders are in its ``runs/tutorial/``.
        epochs: epochs of each run, if not those of the tutorial.
        more: further cells, which may fail.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    for name in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    (folder / "docs").mkdir()
    notebook = nbformat.read(TUTORIAL, as_version=4)
    if epochs is not None:
        (cell,) = (cell for cell in notebook.cells if '"epochs": ' in cell.source)
        cell.source = re.sub(r'"epochs": \d+', f'"epochs": {epochs}', cell.source)
    tags = {"tags": ["raises-exception"]}
    notebook.cells += [nbformat.v4.new_code_cell(source, metadata=tags) for source in more]
    resources = {"metadata": {"path": str(folder / "docs")}}
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=300, coalesce_streams=True, resources=resources
    )
    client.execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Remove what differs between machines: the kernel's description, times of cells, messages on stderr."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]


def text_of(notebook: nbformat.NotebookNode) -> str:
    """The text of all outputs."""
    outputs = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    return "\n".join(one.get("text", "") or one.get("data", {}).get("text/plain", "") for one in outputs)


def main() -> None:
    """Execute the tutorial and write it with its outputs."""
    with tempfile.TemporaryDirectory() as name:
        notebook = execute(Path(name))
        tidy(notebook)
        nbformat.write(notebook, TUTORIAL)
    print(f"{TUTORIAL}: {TUTORIAL.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
