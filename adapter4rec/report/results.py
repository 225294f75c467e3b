"""What a study found so far: for each planned row its runs, with means and deviations over the seeds."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapter4rec.report.plan import Plan, PlanEntry, PlannedRow
from adapter4rec.runs.ledger import FAILED, FINISHED, Record, latest

_USUAL_CUTOFF = 10


@dataclass(frozen=True)
class Statistic:
    """A quantity over the seeds of a row.

    Attributes:
        mean: over the finished runs that have it.
        deviation: sample standard deviation; None for a single run.
        count: of these runs.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic | None:
        """The statistic of some values; None where there are none."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class ReportedRun:
    """A planned run and what became of it.

    Attributes:
        planned: what was to be run.
        record: the ledger's; None where it has not been run.
        folder: where its files are.
    """

    planned: PlanEntry
    record: Record | None
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return self.record is not None and self.record["outcome"] == FINISHED

    @property
    def failed(self) -> bool:
        """Whether it ended before it had a result."""
        return self.record is not None and self.record["outcome"] == FAILED

    @property
    def command(self) -> str:
        """That repeats it."""
        return self.record["command"] if self.record else self.planned.command

    @property
    def state(self) -> str:
        """In words."""
        if self.finished:
            return "finished"
        if self.failed:
            return f"failed (exit code {self.record['exit_code']})"
        return "not run" if self.planned.keys else "not run: its source model is not trained yet"


@dataclass(frozen=True, eq=False)
class ResultRow:
    """A row of a table; equal to itself alone.

    Attributes:
        section: the table.
        name: of the row; with the scale where the name alone does not tell rows apart.
        planned: what was to be run.
        runs: one a seed.
    """

    section: str
    name: str
    planned: PlannedRow
    runs: tuple[ReportedRun, ...]

    @cached_property
    def finished(self) -> tuple[ReportedRun, ...]:
        """Runs with a result."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def records(self) -> list[Record]:
        """Of the finished runs."""
        return [run.record for run in self.finished]

    @property
    def state(self) -> str:
        """``finished`` if a run has; else ``failed (exit code N)``, or ``not run``."""
        if self.finished:
            return "finished"
        return next((run.state for run in self.runs if run.failed), "not run")

    def test(self, metric: str) -> Statistic | None:
        """A metric of the test over the seeds, in per cent."""
        return self.over_seeds(lambda record: record["test"].get(metric))

    def over_seeds(self, quantity: Any) -> Statistic | None:
        """A quantity, which is computed from a record or None, over the seeds."""
        found = (quantity(record) for record in self.records)
        return Statistic.of([value for value in found if value is not None])

    @property
    def trained_parameters(self) -> Statistic | None:
        """How many numbers are trained."""
        return self.over_seeds(lambda record: record["parameters"]["trained"])

    @property
    def trained_share(self) -> Statistic | None:
        """The same in per cent of all parameters."""
        return self.over_seeds(lambda record: record["parameters"]["share"])

    @property
    def seconds_per_epoch(self) -> Statistic | None:
        """Of training; None where nothing is trained."""
        return self.over_seeds(lambda record: record["seconds_per_epoch"])

    @property
    def peak_memory(self) -> Statistic | None:
        """In MiB."""
        found = self.over_seeds(lambda record: record["peak_memory_bytes"])
        if found is None:
            return None
        deviation = None if found.deviation is None else found.deviation / 2**20
        return Statistic(found.mean / 2**20, deviation, found.count)


@dataclass(frozen=True)
class Section:
    """Rows that stand in one table and are compared with one another.

    Attributes:
        name: may be empty.
        rows: in the order of the plan.
        reference: name of the row that the others are compared with.
    """

    name: str
    rows: tuple[ResultRow, ...]
    reference: str

    def reference_of(self, row: ResultRow) -> ResultRow | None:
        """The row that another is compared with; at the same scale, where there are several called so.

        None for the reference itself, and where there is none.
        """
        candidates = [one for one in self.rows if self.reference in (one.planned.name, one.planned.series)]
        if row in candidates:
            return None
        if len(candidates) == 1:
            return candidates[0]
        return next((one for one in candidates if one.planned.scale == row.planned.scale), None)

    @cached_property
    def compared(self) -> tuple[tuple[ResultRow, ...], ...]:
        """Rows that are alternatives: those of one scale, where each scale has a reference; else all."""
        references = [one for one in self.rows if self.reference in (one.planned.name, one.planned.series)]
        if len(references) < 2:
            return (self.rows,)
        scales = dict.fromkeys(row.planned.scale for row in self.rows)
        return tuple(tuple(row for row in self.rows if row.planned.scale == scale) for scale in scales)


@dataclass(frozen=True)
class ReportedStudy:
    """A plan and what was found.

    Attributes:
        plan: of the study.
        sections: tables.
    """

    plan: Plan
    sections: tuple[Section, ...]

    @cached_property
    def rows(self) -> tuple[ResultRow, ...]:
        """Of all sections."""
        return tuple(row for section in self.sections for row in section.rows)

    @cached_property
    def records(self) -> list[Record]:
        """Of all finished runs; a run that stands in several rows once."""
        return list({record["key"]: record for row in self.rows for record in row.records}.values())

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics of the tests, in the order in which they are found."""
        return list(dict.fromkeys(name for record in self.records for name in record["test"]))

    @cached_property
    def cutoff(self) -> int:
        """Length of the list that the tables are about: 10 if it was measured, else the first one."""
        lengths = [int(found[1]) for name in self.metrics if (found := re.fullmatch(r"HR@(\d+)", name))]
        return _USUAL_CUTOFF if _USUAL_CUTOFF in lengths or not lengths else lengths[0]

    @property
    def headline(self) -> list[str]:
        """The metrics of the tables."""
        usual = [f"HR@{self.cutoff}", f"NDCG@{self.cutoff}"]
        return usual + (["MRR"] if "MRR" in self.metrics else [])


def study_of(plan: Plan, ledgers: Mapping[Path, Iterable[Record]]) -> ReportedStudy:
    """Find the records of a plan's rows.

    Args:
        plan: of the study.
        ledgers: by its path, what a ledger holds.
    """
    homes = [(record, ledger.parent) for ledger, records in ledgers.items() for record in records]
    homes.sort(key=lambda found: found[0].get("time", ""))
    folders = {id(record): _folder(record, home) for record, home in homes}
    found = latest(record for record, _ in homes)
    names = [(row.section, row.name) for row in plan.rows]
    rows = []
    for row in plan.rows:
        name = row.name
        if names.count((row.section, name)) > 1:
            name += " (no scale)" if row.scale is None else f" ({row.scale:g})"
        rows.append(ResultRow(row.section, name, row, tuple(_run(run, found, folders) for run in row.runs)))
    sections = dict.fromkeys(row.section for row in rows)
    return ReportedStudy(
        plan,
        tuple(
            Section(name, tuple(row for row in rows if row.section == name), plan.reference)
            for name in sections
        ),
    )


def _run(planned: PlanEntry, found: Mapping[str, Record], folders: Mapping[int, Path]) -> ReportedRun:
    records = [found[key] for key in planned.keys if key in found]
    record = next((one for one in records if one["outcome"] == FINISHED), records[0] if records else None)
    folder = Path(planned.folder) if record is None else folders[id(record)]
    return ReportedRun(planned, record, folder)


def _folder(record: Record, home: Path) -> Path:
    """Where a run's files are: where the run left them, or beside the ledger if that was moved."""
    folder = Path(record["folder"])
    return folder if folder.is_dir() else home / folder.name
