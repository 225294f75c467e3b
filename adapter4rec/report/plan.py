"""What a study set out to run: the rows of its tables, from the ``study.json`` beside its ledger."""

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
    """One seed of a row.

    Attributes:
        seed: of the run.
        keys: of the records that are this run; none where it cannot be known yet, several where machines ran
            apart.
        folder: where the run is to lie.
        command: that makes it.
    """

    seed: int
    keys: tuple[str, ...]
    folder: str
    command: str


@dataclass(frozen=True)
class PlannedRow:
    """A row of a study's table.

    Attributes:
        section: the table that the row stands in; may be empty.
        name: of the row, in its section.
        series: the line that the row is a point of, where the study varies a quantity.
        scale: that quantity; None where the row has none.
        runs: a run for each seed.
    """

    section: str
    name: str
    series: str
    scale: float | None
    runs: tuple[PlanEntry, ...]

    @property
    def place(self) -> tuple[str, str, float | None]:
        """What tells rows apart."""
        return self.section, self.name, self.scale


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        study: name in one word; files are called after it.
        title: headline.
        about: what it shows; plain text, paragraphs parted by an empty line.
        command: that carries it out; may be empty.
        reference: name of the row that the others of its section are compared with.
        groups: whether users and items are reported in groups.
        scale_label: the quantity that the study varies, with its unit; None where it varies none.
        rows: in the order of the tables.
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
    """The study that a ``study.json`` describes.

    Raises:
        UserError: it is damaged, or two of its rows have the same name in the same section.
    """
    said = read_json(path, ("study", "title", "about", "reference", "rows"))
    try:
        plan = _plan_of(said)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} not there" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: damaged ({what}); the study writes it anew when it runs") from None
    places = [row.place for row in plan.rows]
    for place in places:
        if places.count(place) > 1:
            raise UserError(f"{path}: two rows are called {place[1]!r} in the section {place[0]!r}")
    return plan


def _plan_of(said: dict[str, Any]) -> Plan:
    scale = said.get("scale")
    plan = Plan(
        study=_text(said["study"], "study"),
        title=_text(said["title"], "title"),
        about=_text(said["about"], "about"),
        command=_text(said.get("command", ""), "command"),
        reference=_text(said["reference"], "reference"),
        groups=bool(said.get("groups", False)),
        scale_label=None if scale is None else _text(scale["label"], "label"),
        rows=tuple(map(_row_of, said["rows"])),
    )
    if not re.fullmatch(r"[\w-][\w.-]*", plan.study):
        raise ValueError(f"study {plan.study!r}: letters, digits, '_', '-' and '.' are allowed")
    return plan


def _row_of(said: dict[str, Any]) -> PlannedRow:
    name = _text(said["name"], "name")
    scale = said.get("scale")
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale of {name!r}: no number")
    return PlannedRow(
        section=_text(said.get("section", ""), "section"),
        name=name,
        series=_text(said.get("series") or name, "series"),
        scale=None if scale is None else float(scale),
        runs=tuple(map(_run_of, said["runs"])),
    )


def _run_of(said: dict[str, Any]) -> PlanEntry:
    key = said.get("key")
    keys = () if key is None else (_text(key, "key"),)
    folder, command = (_text(said.get(name, ""), name) for name in ("folder", "command"))
    return PlanEntry(int(said["seed"]), keys, folder, command)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: a text was expected, {value!r} found")
    return value


def merged(plans: Iterable[Plan]) -> Plan:
    """One study from the plans of machines that ran it apart: all rows, and for each all runs."""
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
