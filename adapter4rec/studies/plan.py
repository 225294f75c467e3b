"""Definition of a study: the rows of its table, the source models they start from, and its runs."""

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
"""Folder in ``Pretraining/`` and ``Downstream/``, by modality."""


def source_settings(modality: str) -> type[RunSettings]:
    """Settings class of training a source model. Requires a checkout of the repository."""
    return import_module(f"Pretraining.{TREES[modality]}.train").Settings


def target_settings(modality: str) -> type[RunSettings]:
    """Settings class of training on a target domain. Requires a checkout of the repository."""
    return import_module(f"Downstream.{TREES[modality]}.train").Settings


@dataclass(frozen=True)
class StudySource:
    """A source model of a study.

    Attributes:
        stages: settings of the runs that train it; each run starts from the model of the previous one.
        checkpoint: path of a trained model, which is used instead if it exists.
    """

    stages: Sequence[Mapping[str, Any]]
    checkpoint: str | None = None


@dataclass(frozen=True)
class StudyRow:
    """A row of a study's table.

    Attributes:
        name: name in the table.
        settings: settings of its runs on the target domain.
        section: rows of the same section are compared with each other.
        source: name of the source model; None if the row starts from none.
        series: rows of the same series form one line in plots over ``scale``.
        scale: position of the row on the horizontal axis of these plots.
        few_steps: settings to override with ``--few_steps``, for small data sets.
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
        """Name with section and scale, as used by ``--only``."""
        scale = "" if self.scale is None else f" ({self.scale:g})"
        return (f"{self.section}: {self.name}" if self.section else self.name) + scale


@dataclass(frozen=True)
class Study:
    """A study: rows to compare and the source models they start from.

    Attributes:
        name: name of the study's script and folder.
        modality: ``text`` or ``image``.
        title: title of the report.
        about: description, one paragraph.
        rows: rows of the table.
        sources: source models by name.
        seeds: seeds of each row.
        reference: name of the row that the others of its section are compared with.
        scale_label: label of the axis of ``StudyRow.scale``; None if no quantity is varied.
        groups: whether the report shows metrics by group of users and items.
        sample: settings that override those of all rows with ``--sample``.
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
        name: name for the terminal.
        settings: validated settings.
        folder: run folder; its name depends on all settings except the number of epochs.
        key: see :func:`adapter4rec.runs.ledger.run_key`.
    """

    name: str
    settings: RunSettings
    folder: Path
    key: str

    @property
    def module(self) -> str:
        """Module that executes the run."""
        return self.settings.module


def planned(cls: type[RunSettings], values: Values, name: str, into: Path) -> PlannedRun:
    """Plan a run.

    Args:
        cls: settings class.
        values: settings without the run folder.
        name: name of the run.
        into: folder of the study.

    Raises:
        UserError: an invalid setting or a missing file.
    """
    settings = cls.from_values(values)
    key = run_key(settings)
    # Independent of the number of epochs: a run continued for more epochs keeps its folder.
    folder_key = run_key(cls.from_values(values | {"epochs": 0}))
    folder = into / f"{slug(name)}_{folder_key[:8]}"
    return PlannedRun(name, cls.from_values(values | {"run_folder": folder, "resume": True}), folder, key)


def slug(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_")


def known_part(cls: type[Settings], values: Mapping[str, Any], method: str | None) -> Values:
    """The settings that a method has."""
    known = cls.options({} if method is None else {"method": method})
    return {name: value for name, value in values.items() if name in known}


def require_distinct(study: Study, settings_of: Mapping[str, RunSettings]) -> None:
    """Raise a UserError if two rows of a section have the same settings.

    Args:
        study: the study.
        settings_of: settings of each row by its label, without the study's source models.
    """
    seen: dict[str, str] = {}
    for row in study.rows:
        if row.label not in settings_of:
            continue
        settings = settings_of[row.label].plain()
        source = settings["source_checkpoint"] or row.source
        key = json.dumps([row.section, source, settings], sort_keys=True)
        if key in seen:
            raise UserError(
                f"{study.name}: the rows {seen[key]!r} and {row.label!r} have the same settings; the "
                "command line overrides the setting in which they differ"
            )
        seen[key] = row.label


def validate(study: Study) -> None:
    """Raise a UserError for unknown settings, unknown source models or duplicate row names."""
    if study.modality not in TREES:
        raise UserError(f"{study.name}: modality {study.modality!r}; {nearest(study.modality, list(TREES))}")
    cls, source_cls = target_settings(study.modality), source_settings(study.modality)
    labels = [row.label for row in study.rows]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{study.name}: duplicate row {label!r}")
    for row in study.rows:
        if row.source is not None and row.source not in study.sources:
            raise UserError(
                f"{study.name}: row {row.label!r}: unknown source model {row.source!r}; "
                f"{nearest(row.source, list(study.sources))}"
            )
        require_known({**row.settings, **row.few_steps}, cls.options(row.settings))
    for source in study.sources.values():
        for stage in source.stages:
            require_known(stage, source_cls.options({}))
