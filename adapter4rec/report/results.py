"""The results of a study so far: runs of each planned row, with means and deviations over seeds."""

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

_DEFAULT_CUTOFF = 10


@dataclass(frozen=True)
class Statistic:
    """A quantity over the seeds of a row.

    Attributes:
        mean: mean over the finished runs that have a value.
        deviation: sample standard deviation; None for a single run.
        count: number of these runs.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic | None:
        """Mean and deviation of values; None if there are no values."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class ReportedRun:
    """A planned run and its ledger record.

    Attributes:
        planned: the planned run.
        record: ledger record; None if it has not been run.
        folder: run folder.
    """

    planned: PlanEntry
    record: Record | None
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return self.record is not None and self.record["outcome"] == FINISHED

    @property
    def failed(self) -> bool:
        """Whether the run ended without a result."""
        return self.record is not None and self.record["outcome"] == FAILED

    @property
    def command(self) -> str:
        """Command that repeats the run."""
        return self.record["command"] if self.record else self.planned.command

    @property
    def state(self) -> str:
        """State of the run, for display."""
        if self.finished:
            return "finished"
        if self.failed:
            return f"failed (exit code {self.record['exit_code']})"
        return "not run" if self.planned.keys else "not run: source model not trained yet"


@dataclass(frozen=True, eq=False)
class ResultRow:
    """A row of a table; compares by identity.

    Attributes:
        section: name of the section.
        name: name of the row, with the scale if the name alone is not unique.
        planned: the planned row.
        runs: one run per seed.
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
        """Ledger records of the finished runs."""
        return [run.record for run in self.finished]

    @property
    def state(self) -> str:
        """``finished`` if any run has finished, otherwise ``failed (exit code N)`` or ``not run``."""
        if self.finished:
            return "finished"
        return next((run.state for run in self.runs if run.failed), "not run")

    def test(self, metric: str) -> Statistic | None:
        """A test metric over the seeds, in per cent."""
        return self.over_seeds(lambda record: record["test"].get(metric))

    def over_seeds(self, quantity: Any) -> Statistic | None:
        """A quantity over the seeds. ``quantity`` computes it from a ledger record; None is skipped."""
        found = (quantity(record) for record in self.records)
        return Statistic.of([value for value in found if value is not None])

    @property
    def trained_parameters(self) -> Statistic | None:
        """Number of trained parameters."""
        return self.over_seeds(lambda record: record["parameters"]["trained"])

    @property
    def trained_share(self) -> Statistic | None:
        """Trained parameters in per cent of all parameters."""
        return self.over_seeds(lambda record: record["parameters"]["share"])

    @property
    def seconds_per_epoch(self) -> Statistic | None:
        """Training time per epoch in seconds; None if nothing is trained."""
        return self.over_seeds(lambda record: record["seconds_per_epoch"])

    @property
    def peak_memory(self) -> Statistic | None:
        """Peak memory in MiB."""
        found = self.over_seeds(lambda record: record["peak_memory_bytes"])
        if found is None:
            return None
        deviation = None if found.deviation is None else found.deviation / 2**20
        return Statistic(found.mean / 2**20, deviation, found.count)


@dataclass(frozen=True)
class Section:
    """Rows of one table, which are compared with each other.

    Attributes:
        name: name of the section; may be empty.
        rows: rows in the order of the plan.
        reference: name of the row that the others are compared with.
    """

    name: str
    rows: tuple[ResultRow, ...]
    reference: str

    def reference_of(self, row: ResultRow) -> ResultRow | None:
        """The reference row for a row; if there are several, the one at the same scale.

        None if the row is itself a reference, or if there is no reference.
        """
        candidates = [one for one in self.rows if self.reference in (one.planned.name, one.planned.series)]
        if row in candidates:
            return None
        if len(candidates) == 1:
            return candidates[0]
        return next((one for one in candidates if one.planned.scale == row.planned.scale), None)

    @cached_property
    def compared(self) -> tuple[tuple[ResultRow, ...], ...]:
        """Groups of rows to compare: one per scale if there are several references, otherwise all rows."""
        references = [one for one in self.rows if self.reference in (one.planned.name, one.planned.series)]
        if len(references) < 2:
            return (self.rows,)
        scales = dict.fromkeys(row.planned.scale for row in self.rows)
        return tuple(tuple(row for row in self.rows if row.planned.scale == scale) for scale in scales)


@dataclass(frozen=True)
class ReportedStudy:
    """A study with its results.

    Attributes:
        plan: plan of the study.
        sections: sections with the result rows.
    """

    plan: Plan
    sections: tuple[Section, ...]

    @cached_property
    def rows(self) -> tuple[ResultRow, ...]:
        """Rows of all sections."""
        return tuple(row for section in self.sections for row in section.rows)

    @cached_property
    def records(self) -> list[Record]:
        """Records of all finished runs, each once even if several rows share it."""
        return list({record["key"]: record for row in self.rows for record in row.records}.values())

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all test metrics, in order of appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record["test"]))

    @cached_property
    def cutoff(self) -> int:
        """Evaluation cutoff k of the tables: 10 if available, otherwise the first one."""
        cutoffs = [int(found[1]) for name in self.metrics if (found := re.fullmatch(r"HR@(\d+)", name))]
        return _DEFAULT_CUTOFF if _DEFAULT_CUTOFF in cutoffs or not cutoffs else cutoffs[0]

    @property
    def headline(self) -> list[str]:
        """Names of the metrics in the tables."""
        at_cutoff = [f"HR@{self.cutoff}", f"NDCG@{self.cutoff}"]
        return at_cutoff + (["MRR"] if "MRR" in self.metrics else [])


def study_of(plan: Plan, ledgers: Mapping[Path, Iterable[Record]]) -> ReportedStudy:
    """Match the records of ledgers with the runs of a plan.

    Args:
        plan: plan of the study.
        ledgers: records of each ledger, by path of the ledger.
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
    """The recorded run folder, or one of the same name next to the ledger if the study was moved."""
    folder = Path(record["folder"])
    return folder if folder.is_dir() else home / folder.name
