"""Writing reports: a page, tables and plots for each study."""

from __future__ import annotations

import io
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib import rc_context
from matplotlib.figure import Figure

from adapter4rec.report.paper import Figures, read_paper
from adapter4rec.report.plots import STYLE, plots_of
from adapter4rec.report.rendering import latex, markdown, markdown_text
from adapter4rec.report.results import Section, StudyResults, read_studies
from adapter4rec.report.tables import Table, comparison_table, group_tables, metrics_table
from adapter4rec.runs.records import SHEET_FILE
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file
from adapter4rec.utils.settings import as_argument

FOLDER = "report"
_OF_A_RUN = ("seed", "run_folder")
"""Settings that differ between the runs of a row; shown in the commands only."""


@dataclass(frozen=True)
class ReportPart:
    """A section with its tables, its plots by file name, and example recommendations of its best run.

    Attributes:
        examples: name of the row, and the contact sheet in the folder of its run; None if no run has one.
    """

    section: Section
    comparison: Table
    groups: Sequence[Table]
    metrics: Table
    plots: Mapping[str, Figure]
    examples: tuple[str, Path] | None


def write_report(
    ledgers: Sequence[Path],
    into: Path | None = None,
    paper: Path | None = None,
    reference: str | None = None,
) -> list[Path]:
    """Write one report per study, and one for all ledgers without a study.

    Args:
        ledgers: ledgers; the ``study.json`` next to a ledger describes its study. Ledgers of the same study
            are merged.
        into: output folder, with one subfolder per report if there are several; by default ``report`` next to
            the first ledger.
        paper: published results to compare with; by default ``Dataset/paper_results.csv``.
        reference: name of the row that the others are compared with; by default that of the study.

    Returns:
        The files written: a page, ``table.md``, ``table.tex``, ``table.csv`` and plots for each study.

    Raises:
        UserError: a ledger is missing, a ``study.json`` or the file of published results is damaged, or there
            is no row ``reference``.
    """
    found = read_studies(ledgers)
    if reference is not None:
        found = [_compared_with(study, reference) for study in found]
    studies = [(study, *read_paper(paper, study)) for study in found]
    written = []
    for study, published, warnings in studies:
        folder = into or study.folder / FOLDER
        folder = folder / study.name if into and len(studies) > 1 else folder
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        with rc_context(STYLE):
            parts = _parts(study, published)
            contents: dict[str, str | Figure] = {
                f"{study.name}.html": page_html(study, parts, warnings),
                "table.md": _markdown(study, parts),
                "table.tex": _latex(study, parts),
                "table.csv": _results(study, published).to_csv(index=False),
                **{name: figure for part in parts for name, figure in part.plots.items()},
            }
            for name, content in contents.items():
                with atomic_file(folder / name) as temporary:
                    if isinstance(content, str):
                        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
                    else:
                        content.savefig(temporary, dpi=130, format="png")
                written.append(folder / name)
    return written


def _compared_with(study: StudyResults, reference: str) -> StudyResults:
    """The study with another row as the reference."""
    names = list(dict.fromkeys(study.runs["name"]))
    if reference not in names:
        raise UserError(f"--reference {reference}: no such row in {study.name}; there are {', '.join(names)}")
    return replace(study, plan=replace(study.plan, reference=reference))


def _parts(study: StudyResults, paper: Figures) -> list[ReportPart]:
    parts = []
    for number, section in enumerate(study.sections, 1):
        before = f"{number}-" if len(study.sections) > 1 else ""
        plots = {f"{before}{kind}.png": figure for kind, figure in plots_of(study, section).items()}
        comparison, metrics = comparison_table(study, section, paper), metrics_table(study, section)
        examples = _examples(study, section)
        parts.append(ReportPart(section, comparison, group_tables(study, section), metrics, plots, examples))
    return parts


def _examples(study: StudyResults, section: Section) -> tuple[str, Path] | None:
    """The contact sheet of the best run that has one."""
    best_first = f"test.{study.headline[0]}"
    if best_first not in section.finished:
        return None
    runs = section.finished.sort_values(best_first, ascending=False)
    sheets = ((str(run["row"]), Path(run["folder"]) / SHEET_FILE) for run in runs.to_dict("records"))
    return next((found for found in sheets if found[1].is_file()), None)


def _results(study: StudyResults, paper: Figures) -> pd.DataFrame:
    """The results in full precision: one line per row, with every number of the ledger."""
    frames = []
    for section in study.sections:
        numbers = section.finished.drop(columns=["seed", "scale", "finished"]).groupby("row")
        deviations = numbers.std(numeric_only=True).add_suffix(" deviation")
        published = {
            f"{metric}, paper": pd.Series(paper.get((section.name, metric), {}), dtype=float)
            for _, metric in paper
        }
        rows = section.rows.assign(study=study.name, section=section.name, **published)
        frames.append(rows.join(numbers.mean(numeric_only=True)).join(deviations).reset_index())
    return pd.concat(frames)


def _markdown(study: StudyResults, parts: Sequence[ReportPart]) -> str:
    texts = [
        f"# {markdown_text(study.plan.title)}",
        *map(markdown_text, study.plan.about.split("\n\n")),
    ]
    for part in parts:
        texts += [f"## {markdown_text(part.section.name)}" if part.section.name else ""]
        texts += [markdown(part.comparison)]
        texts += [f"![{markdown_text(plot.get_suptitle())}]({name})" for name, plot in part.plots.items()]
        texts += [f"### {markdown_text(table.title)}\n\n{markdown(table)}" for table in part.groups]
    return "\n\n".join(filter(None, texts)) + "\n"


def _latex(study: StudyResults, parts: Sequence[ReportPart]) -> str:
    texts = [f"% {study.name}: \\input this file into a document that loads booktabs."]
    for number, part in enumerate(parts, 1):
        both = part.comparison
        accuracy, cost = ([one for one in both.columns if one.cost == cost] for cost in (False, True))
        tables = [
            Table.of("Test", accuracy, part.section, both.notes),
            Table.of("Cost of training", cost, part.section, both.notes),
            *part.groups,
        ]
        for place, table in enumerate(tables, 1):
            caption = [study.plan.title.rstrip("."), part.section.name, table.title]
            label = f"tab:{study.name.replace('_', '-')}-{number}-{place}"
            texts.append(latex(table, f"{'. '.join(filter(None, caption))}.", label))
    return "\n".join(texts)


def page_html(study: StudyResults, parts: Sequence[ReportPart], warnings: Sequence[str]) -> str:
    """Render the page."""
    loader = PackageLoader("adapter4rec.report", "")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = _data_uri
    environment.filters["png_uri"] = _png_uri
    states = study.runs["state"].str.replace(r"[(:].*", "", regex=True).str.strip().value_counts()
    finished = study.runs[study.runs["finished"]].drop_duplicates("key")["record"]
    hardware = [record["hardware"] | record["versions"] for record in finished]
    data = [{**(record.get("domain") or {}), "hash": record["data"]} for record in finished]
    shared, own = _settings(study.runs)
    return environment.get_template("page.html.j2").render(
        study=study,
        parts=parts,
        warnings=warnings,
        created=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}",
        progress=", ".join(f"{count} {state}" for state, count in states.items()),
        failures=study.runs[study.runs["state"].str.startswith("failed")].to_dict("records"),
        shared=shared,
        own=own,
        environment={"Environments": _counted(hardware), "Data": _counted(data)},
    )


def _data_uri(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode()}"


def _png_uri(path: Path) -> str:
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


def _settings(runs: pd.DataFrame) -> tuple[dict[Any, str], dict[Any, dict[Any, str]]]:
    """Settings that all runs have in common, and the others by run."""
    records = runs["record"].dropna()
    lines = [{name: as_argument(value) for name, value in one["settings"].items()} for one in records]
    texts = pd.DataFrame(lines, records.index).drop(columns=list(_OF_A_RUN), errors="ignore")
    same = texts.nunique(dropna=False) == 1
    shared = texts.loc[:, same].head(1).to_dict("records")
    own = {run: line.dropna().to_dict() for run, line in texts.loc[:, ~same].iterrows()}
    return (shared[0] if shared else {}), own


def _counted(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The distinct lines and their number of runs."""
    return pd.DataFrame(list(lines)).value_counts(sort=False, dropna=False).rename("runs").reset_index()
