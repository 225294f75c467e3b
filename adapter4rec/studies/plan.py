"""What a study asks for: rows of a table, the source models they start from, and the runs that follow."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from adapter4rec.runs.ledger import run_key
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.settings import Settings, Values, require_known

TREES = {"text": "Text", "image": "CV"}
"""Folder of a modality in ``Pretraining/`` and ``Downstream/``."""


def source_settings(modality: str) -> type[RunSettings]:
    """The settings of training a source model; they belong to its tree, so a checkout is needed."""
    return import_module(f"Pretraining.{TREES[modality]}.train").Settings


def target_settings(modality: str) -> type[RunSettings]:
    """The settings of adapting to a target domain."""
    return import_module(f"Downstream.{TREES[modality]}.train").Settings


@dataclass(frozen=True)
class StudySource:
    """A source model and how it is trained.

    Attributes:
        stages: settings of one run after the other, each of which starts from the model of the one before.
        checkpoint: where the model lies if it has been trained already; it is used as it is.
    """

    stages: Sequence[Mapping[str, Any]]
    checkpoint: str | None = None


@dataclass(frozen=True)
class StudyRow:
    """A row of a study's table.

    Attributes:
        name: in the table.
        settings: of its runs on the target domain.
        section: rows of one section are compared with each other.
        source: name of the source model; None for what starts from none.
        series: rows of one series are one line in pictures over ``scale``.
        scale: where the row stands on the axis of such pictures.
        few_steps: settings instead where there is little data, and so few steps (``--few_steps``).
    """

    name: str
    settings: Mapping[str, Any]
    section: str = ""
    source: str | None = None
    series: str = ""
    scale: float | None = None
    few_steps: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The row with its section and scale, as ``--only`` names it."""
        scale = "" if self.scale is None else f" ({self.scale:g})"
        return (f"{self.section}: {self.name}" if self.section else self.name) + scale


@dataclass(frozen=True)
class Study:
    """A question, and the rows that answer it.

    Attributes:
        name: of the study's script and folder.
        modality: ``text`` or ``image``.
        title: of the page.
        about: what is asked, in a paragraph.
        rows: of the table.
        sources: by name.
        seeds: each row is run with each.
        reference: the row of each section with which the others are compared.
        scale_label: what ``StudyRow.scale`` is, where there is one.
        groups: whether metrics of groups of users and items are shown.
        sample: settings of all target runs on the sample, over those of the rows.
    """

    name: str
    modality: str
    title: str
    about: str
    rows: Sequence[StudyRow]
    sources: Mapping[str, StudySource] = field(default_factory=dict)
    seeds: Sequence[int] = (123456,)
    reference: str = "full fine-tuning"
    scale_label: str | None = None
    groups: bool = False
    sample: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        name: for the person at the terminal.
        settings: checked.
        folder: where it lies; its name follows from the settings but for the epochs.
        key: see :func:`adapter4rec.runs.ledger.run_key`.
    """

    name: str
    settings: RunSettings
    folder: Path
    key: str

    @property
    def module(self) -> str:
        """What is run."""
        return self.settings.module


def planned(cls: type[RunSettings], values: Values, name: str, into: Path) -> PlannedRun:
    """A run from its settings.

    Args:
        cls: its settings class.
        values: all but the run folder.
        name: of the run.
        into: the folder of the study.

    Raises:
        UserError: a setting is impossible, or a file that is read is not there.
    """
    settings = cls.from_values(values)
    key = run_key(settings)
    longer = run_key(cls.from_values(values | {"epochs": 0}))  # a run that goes on keeps its folder
    folder = into / f"{slug(name)}_{longer[:8]}"
    return PlannedRun(name, cls.from_values(values | {"run_folder": folder, "resume": True}), folder, key)


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_")


def known_part(cls: type[Settings], values: Mapping[str, Any], method: str | None) -> Values:
    """Those of the settings that a method knows."""
    known = cls.options({} if method is None else {"method": method})
    return {name: value for name, value in values.items() if name in known}


def require_distinct(study: Study, settings_of: Mapping[str, RunSettings]) -> None:
    """Raise a UserError where two rows of a section would be the same runs.

    Args:
        study: whose rows these are.
        settings_of: the settings of each row by its label, but for the study's source models.
    """
    seen: dict[str, str] = {}
    for row in study.rows:
        if row.label not in settings_of:
            continue
        settings = settings_of[row.label].plain()
        source = settings["source_checkpoint"] or row.source
        said = json.dumps([row.section, source, settings], sort_keys=True)
        if said in seen:
            raise UserError(
                f"{study.name}: the rows {seen[said]!r} and {row.label!r} would be the same runs; what "
                "tells them apart is set for all on the command line"
            )
        seen[said] = row.label


def require_sound(study: Study) -> None:
    """Raise a UserError for a page that makes no sense: unknown settings or sources, or rows of one name."""
    if study.modality not in TREES:
        raise UserError(f"{study.name}: modality {study.modality!r}; {nearest(study.modality, list(TREES))}")
    cls, source_cls = target_settings(study.modality), source_settings(study.modality)
    labels = [row.label for row in study.rows]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{study.name}: two rows are called {label!r}")
    for row in study.rows:
        if row.source is not None and row.source not in study.sources:
            raise UserError(
                f"{study.name}: the row {row.label!r} starts from a source model that is not there; "
                f"{nearest(row.source, list(study.sources))}"
            )
        require_known({**row.settings, **row.few_steps}, cls.options(row.settings))
    for source in study.sources.values():
        for stage in source.stages:
            require_known(stage, source_cls.options({}))
