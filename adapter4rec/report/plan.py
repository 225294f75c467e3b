"""The plan of a study: the rows of its tables, from the ``study.json`` next to its ledger."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import read_json

PLAN_FILE = "study.json"


@dataclass(frozen=True)
class PlanEntry:
    """The planned run of a row with one seed.

    Attributes:
        seed: random seed.
        keys: keys of its ledger records; empty if not known yet, several if it was planned on several
            machines.
        folder: planned run folder.
        command: command that executes the run.
    """

    seed: int
    keys: tuple[str, ...]
    folder: str
    command: str


@dataclass(frozen=True)
class PlannedRow:
    """A row of a study's table.

    Attributes:
        section: name of the table; may be empty.
        name: name of the row within its section.
        series: name of the line in plots over ``scale``.
        scale: value of the quantity that the study varies; None if the row has none.
        runs: one run per seed.
    """

    section: str
    name: str
    series: str
    scale: float | None
    runs: tuple[PlanEntry, ...]

    @property
    def place(self) -> tuple[str, str, float | None]:
        """Unique key of the row."""
        return self.section, self.name, self.scale


@dataclass(frozen=True)
class Plan:
    """The plan of a study.

    Attributes:
        study: name of the study, used in file names.
        title: title of the report.
        about: description; plain text with paragraphs separated by empty lines.
        command: command that runs the study; may be empty.
        reference: name of the row that the others of its section are compared with.
        groups: whether to report metrics by group of users and items.
        scale_label: the quantity that the study varies, with its unit; None if it varies none.
        rows: rows in the order of the tables.
    """

    study: str
    title: str
    about: str
    command: str
    reference: str
    groups: bool
    scale_label: str | None
    rows: tuple[PlannedRow, ...]


def read_plan(path: Path) -> Plan:
    """Read a ``study.json``.

    Raises:
        UserError: the file is damaged, or two rows of a section have the same name and scale.
    """
    content = read_json(path, ("study", "title", "about", "reference", "rows"))
    try:
        plan = _plan_of(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: damaged ({what}); run the study again to rewrite it") from None
    places = [row.place for row in plan.rows]
    for place in places:
        if places.count(place) > 1:
            raise UserError(f"{path}: duplicate row {place[1]!r} in section {place[0]!r}")
    return plan


def _plan_of(content: dict[str, Any]) -> Plan:
    scale = content.get("scale")
    plan = Plan(
        study=_text(content["study"], "study"),
        title=_text(content["title"], "title"),
        about=_text(content["about"], "about"),
        command=_text(content.get("command", ""), "command"),
        reference=_text(content["reference"], "reference"),
        groups=bool(content.get("groups", False)),
        scale_label=None if scale is None else _text(scale["label"], "label"),
        rows=tuple(map(_row_of, content["rows"])),
    )
    if not re.fullmatch(r"[\w-][\w.-]*", plan.study):
        raise ValueError(f"study {plan.study!r}: only letters, digits, '_', '-' and '.' are allowed")
    return plan


def _row_of(content: dict[str, Any]) -> PlannedRow:
    name = _text(content["name"], "name")
    scale = content.get("scale")
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale of {name!r}: not a finite number")
    return PlannedRow(
        section=_text(content.get("section", ""), "section"),
        name=name,
        series=_text(content.get("series") or name, "series"),
        scale=None if scale is None else float(scale),
        runs=tuple(map(_run_of, content["runs"])),
    )


def _run_of(content: dict[str, Any]) -> PlanEntry:
    key = content.get("key")
    keys = () if key is None else (_text(key, "key"),)
    folder, command = (_text(content.get(name, ""), name) for name in ("folder", "command"))
    return PlanEntry(int(content["seed"]), keys, folder, command)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {value!r}")
    return value


def merged(plans: Iterable[Plan]) -> Plan:
    """Merge the plans of a study that was run on several machines: the union of their rows and runs."""
    first, *others = plans
    rows = {row.place: row for row in first.rows}
    for plan in others:
        for row in plan.rows:
            before = rows.get(row.place)
            rows[row.place] = row if before is None else replace(before, runs=_joined(before, row))
    return replace(first, rows=tuple(rows.values()))


def _joined(first: PlannedRow, second: PlannedRow) -> tuple[PlanEntry, ...]:
    runs = {run.seed: run for run in first.runs}
    for run in second.runs:
        before = runs.get(run.seed, run)
        keys = tuple(dict.fromkeys(before.keys + run.keys))
        runs[run.seed] = replace(before, keys=keys)
    return tuple(runs.values())
