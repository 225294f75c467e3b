"""Published results entered by the user, for comparison with the measured ones."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

from adapter4rec.report.results import StudyResults
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY, require_regular

DEFAULT = REPOSITORY / "Dataset" / "paper_results.csv"
TRAINED = "trained parameters"
_COLUMNS = ("study", "section", "row", "metric", "value", "note")
_METRIC = re.compile(rf"(HR|NDCG|coverage)@[1-9]\d*|MRR|{TRAINED}")


Figures = dict[tuple[str, str], dict[str, float]]
"""Published results by section and metric, and row, in the unit of the metric."""


def read_paper(path: Path | None, study: StudyResults) -> tuple[Figures, list[str]]:
    """Read the published results for a study.

    Args:
        path: the CSV file; None for the default file, if it exists.
        study: the study.

    Returns:
        The results, and warnings about entries whose row is not in the study.

    Raises:
        UserError: the file does not exist, is not in UTF-8, or has an invalid line.
    """
    figures: Figures = {}
    warnings: list[str] = []
    if path is None and not DEFAULT.is_file():
        return figures, warnings
    path = path or DEFAULT
    if not path.is_file():
        raise UserError(f"{path}: no such file; its columns are {', '.join(_COLUMNS)}")
    rows = {section.name: list(section.rows.index) for section in study.sections}
    require_regular(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not in UTF-8; save it as CSV UTF-8") from None
    with io.StringIO(text, newline="") as file:
        lines = ("\n" if line.startswith("#") else line for line in file)
        reader = csv.DictReader(lines, _COLUMNS, skipinitialspace=True)
        if tuple(next(reader, {}).values()) != _COLUMNS:
            raise UserError(f"{path}: expected the columns {','.join(_COLUMNS)}")
        for entry in reader:
            if entry["study"] != study.name:
                continue
            place, section, row = f"{path}:{reader.line_num}", entry["section"], entry["row"]
            ignored = f"{path.name}:{reader.line_num}: ignored: the study has no"
            value = _checked(place, entry)
            values = figures.setdefault((section, entry["metric"]), {})
            if section not in rows:
                warnings.append(f"{ignored} section {section!r}; {nearest(section, list(rows))}")
            elif row not in rows[section]:
                warnings.append(f"{ignored} row {row!r}; {nearest(row, rows[section])}")
            elif row in values:
                raise UserError(f"{place}: duplicate of an earlier line; remove one of them")
            else:
                values[row] = value
    return figures, warnings


def _checked(place: str, entry: dict[str, str]) -> float:
    """The value of a line, after a check of its columns and metric."""
    if None in entry or None in entry.values():
        raise UserError(
            f"{place}: expected {len(_COLUMNS)} columns; put names that contain commas in double quotes"
        )
    if not _METRIC.fullmatch(entry["metric"]):
        known = ["HR@10", "NDCG@10", "MRR", TRAINED]
        raise UserError(f"{place}: unknown metric {entry['metric']!r}; {nearest(entry['metric'], known)}")
    try:
        value = float(entry["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: invalid value {entry['value']!r}; expected a number such as 5.12")
    return value
