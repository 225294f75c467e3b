"""``docs/tutorial.ipynb`` is executed: the data, the runs, the table, the picture and the recommendations."""

import pytest
from conftest import REPOSITORY
from document_names import stale_names

pytest.importorskip("ipykernel")
pytest.importorskip("nbclient")

import nbformat
from tutorial import TUTORIAL, execute, text_of, tidy

import adapter4rec


def outputs_of(notebook, words):
    """The outputs of the cell that contains these words."""
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and words in cell.source)
    return cell.outputs


def test_the_tutorial_runs(tmp_path):
    again = "runs['houlsby'] = train_target(method='houlsby', users=WORK / 'none', items=WORK / 'none')"
    notebook = execute(tmp_path, epochs=1, more=[again])
    table = adapter4rec.results(tmp_path / "runs" / "tutorial" / "ledger.jsonl")
    assert list(table["run"]) == ["all", "popularity", "frozen", "scratch", "houlsby"]
    assert table["HR@10"].between(0, 100).all()
    assert table.set_index("run")["trained parameters"]["frozen"] == 0
    assert any("image/png" in one.get("data", {}) for one in outputs_of(notebook, "draw_curves"))
    _, alone = (one["data"]["text/plain"] for one in outputs_of(notebook, "only_new"))
    assert {line.split()[2] for line in alone.splitlines()} == {"new1", "new2", "new3"}
    # A mistake is one line in a notebook, too.
    (error,) = notebook.cells[-1].outputs
    assert error.traceback == [f"error: {error.evalue}"]
    assert str(tmp_path) not in text_of(notebook).replace(error.evalue, "")


@pytest.mark.long
def test_the_tutorial_shows_that_the_adapters_transfer(tmp_path):
    execute(tmp_path)
    table = adapter4rec.results(tmp_path / "runs" / "tutorial" / "ledger.jsonl").set_index("run")
    assert table["HR@10"]["houlsby"] > table["HR@10"][["popularity", "frozen", "scratch"]].max()


def test_the_outputs_in_the_repository_are_of_no_machine():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    before = nbformat.writes(notebook)
    tidy(notebook)
    assert nbformat.writes(notebook) == before  # python -m tests.tutorial
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert "/home/" not in text_of(notebook)
    assert "/tmp/" not in text_of(notebook)


def test_what_the_tutorial_names_exists():
    cells = nbformat.read(TUTORIAL, as_version=4).cells
    page = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert stale_names(page, REPOSITORY / "docs" / "tutorial.md") == []
