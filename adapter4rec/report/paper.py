"""Published results entered by the user, for comparison with the measured ones."""

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
    """A published result.

    Attributes:
        value: value in the unit of the metric.
        note: the user's note, such as the table it is taken from.
        line: line number in the file.
    """

    value: float
    note: str
    line: int


@dataclass(frozen=True)
class PaperFigures:
    """Published results for one study.

    Attributes:
        figures: results by section, row and metric.
        warnings: warnings about entries whose row is not in the study.
    """

    figures: Mapping[tuple[str, str, str], Figure]
    warnings: tuple[str, ...] = ()

    def of(self, row: ResultRow, metric: str) -> Figure | None:
        """The published result of a row; None if there is none."""
        return self.figures.get((row.section, row.name, metric))

    def has(self, section: str, metric: str) -> bool:
        """Whether any row of a section has a published result for a metric."""
        return any((place, name) == (section, metric) for place, _, name in self.figures)


def read_paper(path: Path | None, study: ReportedStudy) -> PaperFigures:
    """Read the published results for a study.

    Args:
        path: the CSV file; None for the default file, if it exists.
        study: the study.

    Raises:
        UserError: the file does not exist or has an invalid line.
    """
    if path is None:
        if not DEFAULT.is_file():
            return PaperFigures({})
        path = DEFAULT
    figures: dict[tuple[str, str, str], Figure] = {}
    warnings = []
    for line, entry in _lines(path):
        if entry["study"] != study.plan.study:
            continue
        figure = Figure(_number(path, line, entry["value"]), entry["note"], line)
        metric = _metric(path, line, entry["metric"], study)
        section, row = entry["section"], entry["row"]
        if problem := _unknown(section, row, study):
            warnings.append(f"{path.name}:{line}: ignored: {problem}")
            continue
        first = figures.setdefault((section, row, metric), figure)
        if first is not figure:
            raise UserError(f"{path}:{line}: duplicate of line {first.line}; remove one of them")
    return PaperFigures(figures, tuple(warnings))


def _unknown(section: str, row: str, study: ReportedStudy) -> str:
    """An error message if the study has no such row; empty otherwise."""
    sections = {one.name: [row.name for row in one.rows] for one in study.sections}
    if section not in sections:
        return f"the study has no section {section!r}; {nearest(section, list(sections))}"
    if row not in sections[section]:
        where = f" in the section {section!r}" if section else ""
        return f"the study has no row {row!r}{where}; {nearest(row, sections[section])}"
    return ""


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each line that is neither empty nor a comment."""
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
                f"{path}:{number}: expected {len(header)} columns, got {len(row)}; put names that contain "
                'commas in double quotes ("")'
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
        raise UserError(f"{path}:{line}: invalid value {text!r}; expected a number such as 5.12")
    return value


def _metric(path: Path, line: int, name: str, study: ReportedStudy) -> str:
    known = list(dict.fromkeys([*study.headline, *study.metrics, TRAINED]))
    if name not in known and not _METRIC.fullmatch(name):
        raise UserError(f"{path}:{line}: unknown metric {name!r}; {nearest(name, known)}")
    return name
