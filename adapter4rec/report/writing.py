"""Writing reports: a page, tables and plots for each study."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from adapter4rec.report.page import ReportPart, page_html
from adapter4rec.report.paper import PaperFigures, read_paper
from adapter4rec.report.plots import drawing, plots_of
from adapter4rec.report.rendering import latex, markdown, markdown_text
from adapter4rec.report.results import Study, read_studies
from adapter4rec.report.tables import Table, comparison_table, group_tables, metrics_table
from adapter4rec.utils.files import atomic_file

FOLDER = "report"


def write_report(ledgers: Sequence[Path], into: Path | None = None, paper: Path | None = None) -> list[Path]:
    """Write one report per study, and one for all ledgers without a study.

    Args:
        ledgers: ledgers; the ``study.json`` next to a ledger describes its study. Ledgers of the same study
            are merged.
        into: output folder, with one subfolder per report if there are several; by default ``report`` next to
            the first ledger.
        paper: published results to compare with; by default ``Dataset/paper_results.csv``.

    Returns:
        The files written: a page, ``table.md``, ``table.tex``, ``table.csv`` and plots for each study.

    Raises:
        UserError: a ledger is missing, or a ``study.json`` or the file of published results is damaged.
    """
    studies = [(study, read_paper(paper, study)) for study in read_studies(ledgers)]
    written = []
    for study, figures in studies:
        folder = into or study.folder / FOLDER
        written += _write(study, figures, folder / study.name if into and len(studies) > 1 else folder)
    return written


def _write(study: Study, paper: PaperFigures, folder: Path) -> list[Path]:
    for warning in paper.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with drawing():
        parts = _parts(study, paper)
        texts = {
            f"{study.name}.html": page_html(study, parts, paper.warnings),
            "table.md": _markdown(study, parts),
            "table.tex": _latex(study, parts),
            "table.csv": _results(study, paper).to_csv(index=False),
        }
        writers: dict[str, Callable[[Path], object]] = {
            name: partial(Path.write_text, data=text, encoding="utf-8") for name, text in texts.items()
        }
        for part in parts:
            for name, figure in part.plots.items():
                writers[name] = partial(figure.savefig, dpi=130, format="png")
        for name, write in writers.items():
            with atomic_file(folder / name) as temporary:
                write(temporary)
    return [folder / name for name in writers]


def _parts(study: Study, paper: PaperFigures) -> list[ReportPart]:
    parts = []
    for number, section in enumerate(study.sections, 1):
        before = f"{number}-" if len(study.sections) > 1 else ""
        plots = {f"{before}{kind}.png": figure for kind, figure in plots_of(study, section).items()}
        comparison, metrics = comparison_table(study, section, paper), metrics_table(study, section)
        parts.append(ReportPart(section, comparison, group_tables(study, section), metrics, plots))
    return parts


def _results(study: Study, paper: PaperFigures) -> pd.DataFrame:
    """The results in full precision: one line per row, with every number of the ledger."""
    frames = []
    for section in study.sections:
        rows = section.rows.reset_index().assign(study=study.name, section=section.name)
        numbers = section.finished.select_dtypes("number").columns.drop(["seed", "scale", "number"])
        for name in numbers:
            found = section.over_seeds(name).reset_index()
            rows = rows.assign(**{name: found["mean"], f"{name} deviation": found["deviation"]})
        for name, metric in paper.values:
            if name == section.name:
                rows[f"{metric}, paper"] = rows["row"].map(paper.of(name, metric))
        frames.append(rows)
    return pd.concat(frames)


def _markdown(study: Study, parts: Sequence[ReportPart]) -> str:
    texts = [
        f"# {markdown_text(study.plan['title'])}",
        *map(markdown_text, study.plan["about"].split("\n\n")),
    ]
    for part in parts:
        texts += [f"## {markdown_text(part.section.name)}" if part.section.name else ""]
        texts += [markdown(part.comparison)]
        texts += [f"![{markdown_text(plot.get_suptitle())}]({name})" for name, plot in part.plots.items()]
        texts += [f"### {markdown_text(table.title)}\n\n{markdown(table)}" for table in part.groups]
    return "\n\n".join(filter(None, texts)) + "\n"


def _latex(study: Study, parts: Sequence[ReportPart]) -> str:
    texts = [f"% {study.name}: \\input this file into a document that loads booktabs."]
    for number, part in enumerate(parts, 1):
        both = part.comparison
        accuracy, cost = ([one for one in both.columns if one.cost == cost] for cost in (False, True))
        tables = [
            Table.of("Test", accuracy, part.section, both.notes),
            Table.of("Cost of training", cost, part.section),
            *part.groups,
        ]
        for place, table in enumerate(tables, 1):
            caption = [study.plan["title"].rstrip("."), part.section.name, table.title]
            label = f"tab:{study.name.replace('_', '-')}-{number}-{place}"
            texts.append(latex(table, f"{'. '.join(filter(None, caption))}.", label))
    return "\n".join(texts)
