"""Definition of a study: the rows of its table, the source models they start from, and its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapter4rec.runs.settings import RunSettings


@dataclass(frozen=True)
class StudyRow:
    """A row of a study's table.

    Attributes:
        name: name in the table.
        settings: settings of its runs on the target domain.
        section: rows of the same section are compared with each other.
        source: name of the source model; None if the row starts from none.
        scale: value of the quantity that the study varies; rows of the same name form one line in plots.
    """

    name: str
    settings: Mapping[str, Any]
    section: str = ""
    source: str | None = None
    scale: float | None = None

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
        tree: ``Text`` or ``CV``.
        title: title of the report.
        about: description, one paragraph.
        rows: rows of the table.
        sources: settings of the runs that train the source models, by name; a model that exists at the path
            ``export`` is used instead.
        seeds: seeds of each row.
        reference: name of the row that the others of its section are compared with.
        scale_label: label of the axis of ``StudyRow.scale``; None if no quantity is varied.
        groups: whether the report shows metrics by group of users and items.
    """

    name: str
    tree: str
    title: str
    about: str
    rows: Sequence[StudyRow]
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Sequence[int] = (123456,)
    reference: str = "full fine-tuning"
    scale_label: str | None = None
    groups: bool = False


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
