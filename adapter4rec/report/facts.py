"""Settings, environments and data of the runs in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adapter4rec.report import wording
from adapter4rec.report.results import ReportedStudy, ResultRow
from adapter4rec.report.tables import NOT_THERE, NOTHING, Cell, Column, Line, Table
from adapter4rec.runs.ledger import Record
from adapter4rec.utils.settings import as_argument

_OF_A_RUN = ("seed", "run_folder")
"""Settings that differ between the runs of a row; shown in the commands only."""
_SHORT_HASH = 12

Values = dict[str, tuple[str, ...]]
"""Distinct values of each setting over the seeds of a row."""


@dataclass(frozen=True)
class StudySettings:
    """Settings of a study's rows.

    Attributes:
        shared: settings with the same value in all executed rows.
        of_rows: the other settings, by row.
    """

    shared: dict[str, str]
    of_rows: dict[ResultRow, Values]

    @classmethod
    def of(cls, study: ReportedStudy) -> StudySettings:
        """Collect the settings from the ledger records. Rows without records are skipped."""
        found = {row: values for row in study.rows if (values := _values(row))}
        first = next(iter(found.values()), {})
        shared = {
            name: values[0]
            for name, values in first.items()
            if len(values) == 1 and all(other.get(name) == values for other in found.values())
        }
        rest = {
            row: {name: values for name, values in all_of.items() if name not in shared}
            for row, all_of in found.items()
        }
        return cls(shared, rest)


def _values(row: ResultRow) -> Values:
    found: dict[str, dict[str, None]] = {}
    for record in (run.record for run in row.runs if run.record):
        for name, value in record["settings"].items():
            if name not in _OF_A_RUN:
                found.setdefault(name, {})[as_argument(value)] = None
    return {name: tuple(values) for name, values in found.items()}


def environment_table(study: ReportedStudy) -> Table:
    """One line per machine and set of package versions."""
    versions = list(dict.fromkeys(name for record in study.records for name in record["versions"]))
    grouped = _grouped(study.records, lambda one: (_hardware(one), tuple(sorted(one["versions"].items()))))
    lines = [
        Line(
            hardware,
            tuple(Cell(dict(named).get(name, NOT_THERE)) for name in versions) + _when(records),
        )
        for (hardware, named), records in grouped.items()
    ]
    columns = tuple(Column(name) for name in (*versions, "runs", "from", "to"))
    return Table("Environments", "machine", columns, tuple(lines))


def _hardware(record: Record) -> str:
    one = record["hardware"]
    processes = wording.plural(one["processes"], "process", "processes")
    threads = wording.plural(one["threads"], "thread")
    return f"{one['device']}, {one['platform']}, {processes}, {threads}"


def _when(records: list[Record]) -> tuple[Cell, ...]:
    times = sorted(record.get("time", "")[:16].replace("T", " ") for record in records)
    return Cell(str(len(records)), len(records)), Cell(times[0]), Cell(times[-1])


def data_table(study: ReportedStudy) -> Table:
    """One line per domain and hash of its data."""
    grouped = _grouped(study.records, lambda one: (_domain(one), one["data"]))
    columns = [Column(name) for name in ("users", "items", "clicks", "hash", "runs")]
    lines = []
    for (name, identity), records in grouped.items():
        domain = records[0].get("domain") or {}
        sizes = [
            Cell(wording.count(domain[one]), domain[one]) if one in domain else NOTHING
            for one in ("users", "items", "clicks")
        ]
        hashes = " ".join(part[:_SHORT_HASH] for part in str(identity).split())
        runs = Cell(str(len(records)), len(records))
        lines.append(Line(name, (*sizes, Cell(hashes), runs)))
    return Table("Data", "domain", tuple(columns), tuple(lines))


def _domain(record: Record) -> str:
    domain = record.get("domain")
    return domain["name"] if domain else "unnamed"


def _grouped(records: Iterable[Record], by: Callable[[Record], tuple]) -> dict[tuple, list[Record]]:
    found: dict[tuple, list[Record]] = {}
    for record in records:
        found.setdefault(by(record), []).append(record)
    return found
