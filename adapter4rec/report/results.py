"""The results of a study so far: a table of its runs, and for each section a table of its rows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import pandas as pd

from adapter4rec.report.efficiency import tpme
from adapter4rec.report.generic import planned_runs_of, section_of
from adapter4rec.report.significance import compare
from adapter4rec.runs.ledger import FINISHED, latest, read_ledger
from adapter4rec.runs.records import Record
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import Integer, read_record

PLAN_FILE = "study.json"
TRAINED, SECONDS, MEMORY = "parameters.trained", "seconds_per_epoch", "peak_memory_bytes"
CUTOFF = 10
"""The k of HR@k and NDCG@k in tables; every run measures it."""
_PLACE = ["section", "name", "scale"]
"""What identifies a row."""


_FileName = Annotated[str, msgspec.Meta(pattern=r"\A(?!\.)[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,100}\Z")]
"""A name of a study, by which its report is named: without folders and control characters."""


class _Scale(TypedDict):
    label: str


@dataclass(frozen=True)
class _RunEntry:
    seed: Integer
    key: str | None
    folder: str
    command: str


@dataclass(frozen=True)
class _RowEntry:
    section: str
    name: str
    scale: float | None
    runs: list[_RunEntry]


@dataclass(frozen=True)
class Plan:
    """Content of ``study.json``."""

    study: _FileName
    title: str
    about: str
    reference: str
    rows: list[_RowEntry]
    command: str = ""
    groups: bool = False
    scale: _Scale | None = None


_OF_LEDGER = Plan("ledger", "Runs in a ledger", "", "finetune", [])
"""The plan of a ledger without a study."""


@dataclass(frozen=True, eq=False)
class Section:
    """Rows that are compared with each other.

    Attributes:
        name: name of the section; may be empty.
        runs: one line per run, as :attr:`StudyResults.runs`.
        reference: name of the row that the others are compared with.
    """

    name: str
    runs: pd.DataFrame
    reference: str

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line per row, indexed by its label.

        The columns: ``name``, ``scale``, number of ``planned`` and ``finished`` runs, ``state``,
        ``reference`` row, ``group`` of rows that it is compared with, ``tpme``, and those of
        :func:`adapter4rec.report.significance.compare`. If there are several references, rows are compared
        with that of the same scale.
        """
        grouped = self.runs.groupby("row", sort=False)
        rows = grouped[["name", "scale"]].first()
        rows["planned"], rows["finished"] = grouped.size(), grouped["finished"].sum()
        rows["state"] = grouped["state"].agg(_state_of_row)
        is_reference = rows["name"] == self.reference
        rows["group"] = rows["scale"].astype(str) if is_reference.sum() > 1 else ""
        references = rows[is_reference].reset_index().drop_duplicates("group").set_index("group")["row"]
        rows["reference"] = rows["group"].map(references).mask(is_reference)
        costs = pd.DataFrame({cost: self.over_seeds(cost)["mean"] for cost in (SECONDS, TRAINED, MEMORY)})
        rows["tpme"] = tpme(costs[costs[TRAINED] > 0].dropna(), rows["group"])
        return rows.join(compare(self.finished, rows["reference"], CUTOFF))

    @property
    def finished(self) -> pd.DataFrame:
        """The finished runs."""
        return self.runs[self.runs["finished"]]

    def over_seeds(self, quantity: str) -> pd.DataFrame:
        """A quantity of the ledger, such as ``test.HR@10``, by row.

        Returns:
            ``mean``, sample standard ``deviation``, ``count`` and ``values`` of the finished runs; NaN for
            rows without a value.
        """
        values = self.finished.reindex(columns=[quantity])[quantity].astype(float).dropna()
        found = values.groupby(self.runs["row"]).agg(["mean", "std", "count", list])
        return found.set_axis(["mean", "deviation", "count", "values"], axis=1).reindex(
            self.runs["row"].unique()
        )


@dataclass(frozen=True, eq=False)
class StudyResults:
    """A study with its results.

    Attributes:
        plan: content of its ``study.json``.
        folder: folder of its first ledger.
        runs: one line per planned run: ``section``, ``name`` and ``scale`` identify the row, ``row`` is its
            name within the section; rows of the same ``name`` are a line in plots over ``scale``. Then
            ``seed``, ``key``, ``state``, ``finished``, ``command``, ``folder``, the ledger ``record`` (None
            if it has not been run), and the numbers of the record, such as ``test.HR@10``.
    """

    plan: Plan
    folder: Path
    runs: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the study, used in file names."""
        return self.plan.study

    @property
    def scale_label(self) -> str | None:
        """The quantity that the study varies, with its unit; None if it varies none."""
        return self.plan.scale["label"] if self.plan.scale else None

    @cached_property
    def sections(self) -> list[Section]:
        """Sections in the order of the plan."""
        grouped = self.runs.groupby("section", sort=False)
        return [Section(str(name), runs, self.plan.reference) for name, runs in grouped]

    def numbers(self, prefix: str) -> list[str]:
        """Names of the numbers in the ledger that begin with a prefix, such as ``test.``, without it."""
        return [name.removeprefix(prefix) for name in map(str, self.runs) if name.startswith(prefix)]

    @property
    def headline(self) -> list[str]:
        """Names of the metrics in the tables."""
        return [f"HR@{CUTOFF}", f"NDCG@{CUTOFF}"] + (["MRR"] if "MRR" in self.numbers("test.") else [])


def results(*ledgers: Path | str) -> pd.DataFrame:
    """The finished runs of ledgers as a table, those of a row one after the other, for a notebook.

    Args:
        ledgers: each a ``ledger.jsonl``, which runs write next to their folders.

    Returns:
        One line per run: ``domain``, after its stage; ``run``, its method and the settings that differ among
        the runs, or the name of its row in a study; ``seed``; the metrics of the test in per cent; ``trained
        parameters``, their ``share (%)``, ``s / epoch``, ``peak memory (MiB)`` and the run ``folder``.

    Raises:
        UserError: a ledger is missing, or has no finished runs.
    """
    runs = pd.concat([study.runs for study in read_studies(map(Path, ledgers))], ignore_index=True)
    finished = runs[runs["finished"]].reset_index(drop=True)
    if finished.empty:
        raise UserError(f"{', '.join(map(str, ledgers))}: no run has finished")
    metrics = finished.filter(regex=r"^test\.").rename(columns=lambda name: name.removeprefix("test."))
    columns = {
        "trained parameters": finished[TRAINED].astype(int),
        "share (%)": finished["parameters.share"],
        "s / epoch": finished[SECONDS].astype(float),
        "peak memory (MiB)": finished[MEMORY].astype(float) / 2**20,
        "folder": finished["folder"].map(os.path.relpath),
    }
    named = finished[["record", "row", "seed"]].set_axis(["domain", "run", "seed"], axis=1)
    return named.assign(domain=finished["record"].map(section_of)).join(metrics).assign(**columns)


def read_studies(ledgers: Iterable[Path]) -> list[StudyResults]:
    """Read ledgers and merge those of the same study, in order of appearance.

    Raises:
        UserError: a ledger is missing or has no runs, or a ``study.json`` is damaged.
    """
    found: dict[str, dict[Path, Plan]] = {}
    for ledger in dict.fromkeys(Path(ledger).absolute() for ledger in ledgers):
        plan = _read_plan(ledger)
        found.setdefault(plan.study, {})[ledger] = plan
    return [_read_study(of_study) for of_study in found.values()]


def _read_plan(ledger: Path) -> Plan:
    path = ledger.parent / PLAN_FILE
    return read_record(path, Plan) if path.exists() else _OF_LEDGER


def _read_study(plans: Mapping[Path, Plan]) -> StudyResults:
    """The results of a study; ``plans`` has the plan of each of its ledgers."""
    ledgers, plan = list(plans), next(iter(plans.values()))
    records = latest([record for ledger in ledgers for record in _read_records(ledger)])
    if plan.rows:
        planned = pd.concat(map(_planned_runs, plans.values()))
    elif records:
        planned = planned_runs_of(records.values())
    else:
        raise UserError(f"{ledgers[0]}: no runs")
    if planned.empty:
        raise UserError(f"{ledgers[0].parent / PLAN_FILE}: no planned runs; run the study again")
    return StudyResults(plan, ledgers[0].parent, _runs(planned, records))


def _planned_runs(plan: Plan) -> pd.DataFrame:
    columns = [*_PLACE, "seed", "key", "folder", "command"]
    rows = asdict(plan)["rows"]
    return pd.DataFrame([{**row, **run} for row in rows for run in row["runs"]], columns=columns)


def _read_records(ledger: Path) -> list[Record]:
    """Records with their run folder, or one of the same name next to the ledger if the study was moved."""
    records = read_ledger(ledger)
    for record in records:
        if not os.path.isdir(record["folder"]):  # noqa: PTH112 (False for a path that cannot be)
            record["folder"] = str(ledger.parent / Path(record["folder"]).name)
    return records


def _runs(planned: pd.DataFrame, records: Mapping[str, Record]) -> pd.DataFrame:
    """The planned runs with their records. A run that several machines planned is listed once."""
    lines = []
    for run in planned.to_dict("records"):
        record = records.get(run["key"])
        ran = {name: record[name] for name in ("command", "folder")} if record else {}
        lines.append(run | ran | {"state": _state(run, record), "record": record})
    runs = pd.DataFrame(lines).astype({"scale": float})
    runs["finished"] = runs["state"] == "finished"
    runs["number"] = runs.groupby(_PLACE, sort=False, dropna=False).ngroup()
    runs = runs.sort_values("finished", kind="stable").drop_duplicates(["number", "seed"], keep="last")
    runs = runs.sort_values(["number", "seed"], ignore_index=True)
    scaled = runs.groupby(["section", "name"])["number"].transform("nunique") > 1
    scale = runs["scale"].map(lambda scale: " (no scale)" if math.isnan(scale) else f" ({scale:g})")
    numbers = pd.json_normalize([_numbers(record) for record in runs["record"]])
    return runs.assign(row=runs["name"] + scale.where(scaled, "")).drop(columns="number").join(numbers)


def _numbers(record: Record | None) -> Record:
    """The part of a finished run's record that consists of numbers, with groups by name."""
    if record is None or record["outcome"] != FINISHED:
        return {}
    named = {
        kind: {str(one.get("group")): one for one in groups} for kind, groups in record["groups"].items()
    }
    names = ("test", "parameters", "best_epoch", "seconds", SECONDS, MEMORY)
    return {name: record[name] for name in names} | {"groups": named}


def _state(run: Mapping[Any, Any], record: Record | None) -> str:
    if record is None:
        return "not run" if isinstance(run["key"], str) else "not run: source model not trained yet"
    return "finished" if record["outcome"] == FINISHED else f"failed (exit code {record['exit_code']})"


def _state_of_row(states: pd.Series[str]) -> str:
    """``finished`` if any run has finished, otherwise ``failed (exit code N)`` or ``not run``."""
    failed = [state for state in states if state.startswith("failed")]
    return "finished" if "finished" in set(states) else failed[0] if failed else "not run"
