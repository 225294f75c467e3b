"""Figures that a user took from a paper, to stand beside the measured ones."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.report.results import ReportedStudy, ResultRow
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY

DEFAULT = REPOSITORY / "Dataset" / "paper_results.csv"
TRAINED = "trained parameters"
_COLUMNS = ("study", "section", "row", "metric", "value", "note")
_METRIC = re.compile(r"(HR|NDCG|coverage)@[1-9]\d*|MRR(@[1-9]\d*)?")


@dataclass(frozen=True)
class Figure:
    """A figure of a paper.

    Attributes:
        value: in the unit of the metric.
        note: where it stands, as the user wrote.
        line: of the file.
    """

    value: float
    note: str
    line: int


@dataclass(frozen=True)
class PaperFigures:
    """The figures of one study.

    Attributes:
        figures: by section, row and metric.
        warnings: figures of rows that the study does not have.
    """

    figures: Mapping[tuple[str, str, str], Figure]
    warnings: tuple[str, ...] = ()

    def of(self, row: ResultRow, metric: str) -> Figure | None:
        """The figure of a row; None where none was entered."""
        return self.figures.get((row.section, row.name, metric))

    def has(self, section: str, metric: str) -> bool:
        """Whether a metric was entered for a row of a section."""
        return any((place, name) == (section, metric) for place, _, name in self.figures)


def read_paper(path: Path | None, study: ReportedStudy) -> PaperFigures:
    """The figures entered for a study.

    Args:
        path: of the file; the repository's, if it is there, where None is given.
        study: whose rows they belong to.

    Raises:
        UserError: there is no such file, or a line of it cannot be understood.
    """
    if path is None:
        if not DEFAULT.is_file():
            return PaperFigures({})
        path = DEFAULT
    figures: dict[tuple[str, str, str], Figure] = {}
    warnings = []
    for line, said in _lines(path):
        if said["study"] != study.plan.study:
            continue
        figure = Figure(_number(path, line, said["value"]), said["note"], line)
        metric = _metric(path, line, said["metric"], study)
        section, row = said["section"], said["row"]
        if trouble := _unknown(section, row, study):
            warnings.append(f"{path.name}:{line}: left out: {trouble}")
            continue
        before = figures.setdefault((section, row, metric), figure)
        if before is not figure:
            raise UserError(f"{path}:{line}: line {before.line} gives this figure, too; remove one of them")
    return PaperFigures(figures, tuple(warnings))


def _unknown(section: str, row: str, study: ReportedStudy) -> str:
    """Why a study does not have a row; empty where it has it."""
    sections = {one.name: [row.name for row in one.rows] for one in study.sections}
    if section not in sections:
        return f"the study has no section {section!r}; {nearest(section, list(sections))}"
    if row not in sections[section]:
        where = f" in the section {section!r}" if section else ""
        return f"the study has no row {row!r}{where}; {nearest(row, sections[section])}"
    return ""


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Number and columns of each line that says something."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; its columns are {', '.join(_COLUMNS)}")
    text = path.read_text("utf-8-sig")
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if not _empty(line)]
    if not numbered:
        return []
    rows = [next(csv.reader(io.StringIO(line), skipinitialspace=True)) for _, line in numbered]
    header = [name.strip() for name in rows[0]]
    if missing := [name for name in _COLUMNS if name not in header]:
        raise UserError(f"{path}:{numbered[0][0]}: the column {missing[0]!r} is missing")
    found = []
    for (number, _), row in zip(numbered[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise UserError(
                f"{path}:{number}: {len(row)} columns, but {len(header)} are named at the top; a name with "
                'a comma stands in quotation marks ("")'
            )
        found.append((number, {name: cell.strip() for name, cell in zip(header, row, strict=True)}))
    return found


def _empty(line: str) -> bool:
    return not line.strip(" \t,") or line.lstrip().startswith("#")


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}:{line}: the value {text!r} is no number; write 5.12")
    return value


def _metric(path: Path, line: int, name: str, study: ReportedStudy) -> str:
    known = list(dict.fromkeys([*study.headline, *study.metrics, TRAINED]))
    if name not in known and not _METRIC.fullmatch(name):
        raise UserError(f"{path}:{line}: there is no metric {name!r}; {nearest(name, known)}")
    return name
