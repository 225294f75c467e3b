"""Tables of all metrics, and of metrics by group of users and items."""

from __future__ import annotations

from adapter4rec.report import wording
from adapter4rec.report.comparing import Analysis, absent
from adapter4rec.report.results import ResultRow, Section, Statistic
from adapter4rec.report.tables import Cell, Column, Line, Table


def metrics_table(analysis: Analysis, section: Section) -> Table:
    """All test metrics."""
    metrics = analysis.study.metrics
    lines = [
        Line(row.name, tuple(_cell(row.test(metric), row) for metric in metrics), _state(row))
        for row in section.rows
    ]
    return Table("All test metrics", "", tuple(Column(f"{name} (%)") for name in metrics), tuple(lines))


def group_tables(analysis: Analysis, section: Section) -> list[Table]:
    """One table per kind of group and headline metric, with one column per group."""
    if not analysis.study.plan.groups:
        return []
    kinds = dict.fromkeys(kind for row in section.rows for one in row.records for kind in one["groups"])
    return [_group_table(section, kind, metric) for kind in kinds for metric in analysis.study.headline[:2]]


def _group_table(section: Section, kind: str, metric: str) -> Table:
    users: dict[str, set[int]] = {}
    for row in section.rows:
        for record in row.records:
            for group in record["groups"].get(kind, ()):
                users.setdefault(group["group"], set()).add(group["users"])
    columns = tuple(Column(f"{name} ({_users(counts)})") for name, counts in users.items())
    lines = [
        Line(row.name, tuple(_cell(_in_group(row, kind, name, metric), row) for name in users), _state(row))
        for row in section.rows
    ]
    return Table(f"{metric} (%) by {kind}", "", columns, tuple(lines))


def _users(counts: set[int]) -> str:
    """Number of users in a group. It may differ between rows: new items depend on the training users."""
    least, most = min(counts), max(counts)
    return wording.plural(least, "user") if least == most else f"{least:,} to {most:,} users"


def _in_group(row: ResultRow, kind: str, name: str, metric: str) -> Statistic | None:
    return row.over_seeds(
        lambda record: next(
            (one.get(metric) for one in record["groups"].get(kind, ()) if one["group"] == name), None
        )
    )


def _cell(found: Statistic | None, row: ResultRow) -> Cell:
    if found is None:
        return absent(row)
    return Cell(wording.with_deviation(found), found.mean)


def _state(row: ResultRow) -> str:
    return "" if row.finished else row.state
