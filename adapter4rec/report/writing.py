"""Writing reports: a page, tables and plots for each study."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from adapter4rec.report.comparing import Analysis, accuracy_table, comparison_table, efficiency_table
from adapter4rec.report.figures import write_figures
from adapter4rec.report.generic import plan_of_records
from adapter4rec.report.groups import group_tables
from adapter4rec.report.page import page_html
from adapter4rec.report.paper import read_paper
from adapter4rec.report.pictures import Picture, pictures_of
from adapter4rec.report.plan import PLAN_FILE, Plan, merged, read_plan
from adapter4rec.report.rendering import latex, markdown, markdown_text
from adapter4rec.report.results import ReportedStudy, Section, study_of
from adapter4rec.report.styles import drawing
from adapter4rec.report.svg import inline_svg
from adapter4rec.runs.ledger import Record, read_ledger
from adapter4rec.utils.files import atomic_file

FOLDER = "report"
Drawn = dict[str, list[tuple[Path, Picture]]]
"""Plots and their paths, by section name."""


@dataclass(frozen=True)
class LedgerSource:
    """Ledgers of the same study.

    Attributes:
        plan: plan of the study.
        ledgers: records of each ledger, by path of the ledger.
    """

    plan: Plan
    ledgers: Mapping[Path, Sequence[Record]]


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
    sources = sources_of(ledgers)
    analyses = []
    for source in sources:
        study = study_of(source.plan, source.ledgers)
        analyses.append(Analysis.of(study, read_paper(paper, study)))
    written = []
    for source, analysis in zip(sources, analyses, strict=True):
        folder = into or next(iter(source.ledgers)).parent / FOLDER
        if into and len(sources) > 1:
            folder = into / source.plan.study
        written += _write(analysis, folder)
    return written


def sources_of(ledgers: Iterable[Path]) -> list[LedgerSource]:
    """Group ledgers by study, in order of appearance."""
    plans: dict[str, list[Plan]] = {}
    found: dict[str, dict[Path, list[Record]]] = {}
    for ledger in dict.fromkeys(Path(ledger).absolute() for ledger in ledgers):
        records = read_ledger(ledger)
        plan_file = ledger.parent / PLAN_FILE
        plan = read_plan(plan_file) if plan_file.is_file() else None
        name = plan.study if plan else ""
        plans.setdefault(name, []).extend([plan] if plan else [])
        found.setdefault(name, {})[ledger] = records
    return [
        LedgerSource(merged(plans[name]) if name else plan_of_records(chain(*held.values())), held)
        for name, held in found.items()
    ]


def _write(analysis: Analysis, folder: Path) -> list[Path]:
    for warning in analysis.paper.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    page = folder / f"{analysis.study.plan.study}.html"
    with drawing():
        drawn = _draw(analysis.study, folder)
        inside = {
            section: [(one.caption, inline_svg(one.figure, path.stem, one.caption)) for path, one in found]
            for section, found in drawn.items()
        }
    texts = {
        page: page_html(analysis, inside),
        folder / "table.md": _markdown(analysis, drawn),
        folder / "table.tex": _latex(analysis),
    }
    for path, text in texts.items():
        with atomic_file(path) as aside:
            aside.write_text(text, encoding="utf-8")
    write_figures(analysis, folder / "table.csv")
    return [*texts, folder / "table.csv", *(path for found in drawn.values() for path, _ in found)]


def _draw(study: ReportedStudy, folder: Path) -> Drawn:
    """Draw all plots and save them as PNG."""
    drawn: Drawn = {}
    for number, section in enumerate(study.sections, 1):
        before = f"{number}-" if len(study.sections) > 1 else ""
        pictures = pictures_of(study, section)
        drawn[section.name] = [(folder / f"{before}{one.kind}.png", one) for one in pictures]
        for path, picture in drawn[section.name]:
            with atomic_file(path) as aside:
                picture.figure.savefig(aside, dpi=130, format="png", facecolor="white")
    return drawn


def _markdown(analysis: Analysis, drawn: Drawn) -> str:
    plan = analysis.study.plan
    parts = [f"# {markdown_text(plan.title)}\n"]
    parts += [f"{markdown_text(part)}\n" for part in plan.about.split("\n\n") if part.strip()]
    for section in analysis.study.sections:
        if section.name:
            parts.append(f"## {markdown_text(section.name)}\n")
        parts.append(markdown(comparison_table(analysis, section)))
        parts += [f"![{markdown_text(one.caption)}]({path.name})\n" for path, one in drawn[section.name]]
        for table in group_tables(analysis, section):
            parts.append(f"### {markdown_text(table.title)}\n\n{markdown(table)}")
    return "\n".join(parts)


def _latex(analysis: Analysis) -> str:
    parts = [f"% {analysis.study.plan.study}: \\input this file into a document that loads booktabs.\n"]
    for number, section in enumerate(analysis.study.sections, 1):
        kinds = {
            "accuracy": (accuracy_table(analysis, section), "Test"),
            "efficiency": (efficiency_table(analysis, section), "Cost of training"),
        }
        for table in group_tables(analysis, section):
            kinds[f"group{len(kinds) - 1}"] = (table, f"Test, {table.title}")
        for kind, (table, what) in kinds.items():
            label = f"tab:{analysis.study.plan.study.replace('_', '-')}-{number}-{kind}"
            parts.append(latex(table, _caption(analysis.study, section, what), label))
    return "\n".join(parts)


def _caption(study: ReportedStudy, section: Section, what: str) -> str:
    return ". ".join(filter(None, (study.plan.title.rstrip("."), section.name, what))) + "."
