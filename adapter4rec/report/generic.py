"""The plan of a ledger without a study: its runs, grouped into rows by all settings but the seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from adapter4rec.report.plan import Plan, PlanEntry, PlannedRow
from adapter4rec.runs.ledger import Record, latest
from adapter4rec.utils.settings import as_argument

NAME = "ledger"
_ESSENTIAL = ("users", "items", "images", "source_checkpoint", "start_from", "epochs")
"""Settings that affect the result although they are not part of a run's identity."""


def essential_settings(record: Record) -> dict[str, Any]:
    """The settings by which runs are grouped into rows: all that affect the result, except the seed."""
    settings = record["settings"]
    chosen = {**record["identity"], **{name: settings[name] for name in _ESSENTIAL if name in settings}}
    return {name: value for name, value in chosen.items() if name != "seed"}


def plan_of_records(records: Iterable[Record]) -> Plan:
    """A plan with the runs of a ledger, in the order of the ledger."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in latest(records).values():
        place = (section_of(record), json.dumps(essential_settings(record), sort_keys=True))
        groups.setdefault(place, []).append(record)
    sections = [section for section, _ in groups]
    ordered = sorted(groups, key=lambda place: sections.index(place[0]))
    rows: list[PlannedRow] = []
    for section, places in groupby(ordered, key=lambda place: place[0]):
        group = [groups[place] for place in places]
        names = _names([json.loads(key) for found, key in ordered if found == section])
        rows += [_row(section, name, runs) for name, runs in zip(names, group, strict=True)]
    return Plan(NAME, "Runs in a ledger", "", "", "finetune", False, None, tuple(rows))


def section_of(record: Mapping[str, Any]) -> str:
    """Stage and domain of a run."""
    domain = record.get("domain")
    name = domain["name"] if domain else Path(record["settings"].get("users") or "").parent.name
    return f"{record['stage']}, {name}" if name else record["stage"]


def _names(settings: list[dict[str, Any]]) -> list[str]:
    """A name for each row: its method, and the settings that differ between the rows of that method."""
    names = []
    for one in settings:
        method = one.get("method")
        alike = [other for other in settings if other.get("method") == method]
        values = {name: {as_argument(other[name]) for other in alike if name in other} for name in one}
        differing = [name for name, found in values.items() if len(found) > 1]
        name = ", ".join([str(method), *(f"{name} {_short(one[name])}" for name in differing)])
        names.append(name)
    # Rows that differ only in settings that one of them lacks have equal names: number them.
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _short(value: Any) -> str:
    text = as_argument(value)
    return "/".join(Path(text).parts[-2:]) if "/" in text else text


def _row(section: str, name: str, records: list[Record]) -> PlannedRow:
    runs: dict[int, PlanEntry] = {}
    for record in records:
        before = runs.get(record["seed"])
        keys = (*(before.keys if before else ()), record["key"])
        runs[record["seed"]] = PlanEntry(record["seed"], keys, record["folder"], record["command"])
    ordered = tuple(run for _, run in sorted(runs.items()))
    return PlannedRow(section, name, name, None, ordered)
