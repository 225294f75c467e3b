"""The results as CSV: one line per row, in full precision."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from adapter4rec.report.comparing import Analysis
from adapter4rec.report.paper import TRAINED
from adapter4rec.report.results import ResultRow, Section, Statistic
from adapter4rec.utils.files import atomic_file

_QUANTITIES = ("trained_parameters", "seconds_per_epoch", "peak_memory")
_NAMES = {"peak_memory": "peak_memory_mib"}


def write_figures(analysis: Analysis, path: Path) -> None:
    """Write the CSV. Metrics are in per cent, memory in MiB; cells without a value are empty."""
    rows = [_row(analysis, section, row) for section in analysis.study.sections for row in section.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_file(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _row(analysis: Analysis, section: Section, row: ResultRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "study": analysis.study.plan.study,
        "section": section.name,
        "row": row.planned.name,
        "series": row.planned.series,
        "scale": _value(row.planned.scale),
        "state": row.state,
        "seeds_planned": len(row.runs),
        "seeds_finished": len(row.finished),
        "seeds": " ".join(str(run.planned.seed) for run in row.finished),
    }
    for metric in analysis.study.metrics:
        found |= _statistic(metric, row.test(metric))
    for metric in (*analysis.study.metrics, TRAINED):
        figure = analysis.paper.of(row, metric)
        found |= {f"{metric} paper": figure.value} if figure else {}
    for name in _QUANTITIES:
        found |= _statistic(_NAMES.get(name, name), getattr(row, name))
    found |= _statistic("trained_share", row.trained_share)
    found["tpme"] = _value(analysis.tpme.get(row))
    found["best_epochs"] = " ".join(str(record["best_epoch"]) for record in row.records)
    reference, compared = section.reference_of(row), analysis.comparisons.get(row)
    found["reference"] = reference.name if reference else ""
    for name in ("users", "p", "corrected"):
        found[f"test_{name}"] = _value(getattr(compared, name, None) or None) if compared else ""
    return found


def _statistic(name: str, found: Statistic | None) -> dict[str, Any]:
    mean, deviation = (found.mean, found.deviation) if found else (None, None)
    return {name: _value(mean), f"{name} deviation": _value(deviation)}


def _value(value: float | None) -> float | str:
    return "" if value is None else value
