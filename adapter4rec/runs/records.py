"""The JSON files of a run folder and the records of a ledger: their fields, checked when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from adapter4rec.utils.files import require_regular
from adapter4rec.utils.records import Count, Integer, Object, Seconds, checked, damaged, record_of

Record = dict[str, Any]
Metrics = dict[str, float]
EpochRecord = dict[str, Integer | float | str]
"""Metrics by name, with the number of the epoch, ``epoch``, and the ``split``."""
SHEET_FILE = "recommendations.png"
"""Contact sheet of a run on images in its folder, which its section of a report shows."""


class IdentityRecord(TypedDict):
    """A run's identity (see :class:`adapter4rec.runs.identity.Identity`)."""

    stage: str
    settings: Object
    data: str
    start: str | None


class ParameterRecord(TypedDict):
    """Numbers of parameters of a model."""

    trained: Count
    total: Count


class ParameterShare(ParameterRecord):
    """Numbers of parameters, and the share of the trained ones in per cent."""

    share: float


class DomainRecord(TypedDict):
    """Name and size of a domain."""

    name: str
    users: Count
    items: Count
    clicks: Count


class HardwareRecord(TypedDict):
    """Where a run was trained."""

    device: str
    processes: Count
    threads: Count
    platform: str


def stopping_epoch(history: Sequence[Record], patience: int | None) -> int | None:
    """The first epoch after which ``patience`` validations in a row had no higher HR@10 than before."""
    best, since = -1.0, 0
    for record in history:
        if "HR@10" in record:
            best, since = max(best, record["HR@10"]), 0 if record["HR@10"] > best else since + 1
            if since == patience:
                return int(record["epoch"])
    return None


@dataclass(frozen=True)
class RunDescription:
    """Content of ``settings.json``."""

    identity: IdentityRecord
    settings: Object
    parameters: ParameterRecord
    domain: DomainRecord
    versions: dict[str, str]
    hardware: HardwareRecord
    folder: str | None = None
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Content of ``result.json`` (see :meth:`adapter4rec.runs.run.Run.finish`)."""

    requested_epochs: Count
    epoch: Count
    validation: Metrics
    test: Metrics
    groups: dict[str, list[dict[str, Integer | float | str]]]
    trained_parameters: Count
    trained_share: float
    seconds_per_epoch: Seconds | None
    seconds: Seconds
    peak_memory_bytes: Count


class RunResult(dict[str, Any]):
    """What a run returns: the content of its ``result.json``. Prints the test metrics.

    Attributes:
        folder: the run folder; ``adapter4rec.load(result.folder)`` loads the model.
    """

    def __init__(self, content: Record, folder: Path) -> None:
        super().__init__(content)
        self.folder = folder

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name} {value:.2f} %" for name, value in self["test"].items())
        return f"RunResult({self.folder}: test of epoch {self['epoch']}: {metrics})"


@dataclass(frozen=True)
class _Epoch:
    epoch: Count
    split: str


class _Essential(TypedDict):
    method: str


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """What all records of a ledger have."""

    outcome: str
    key: str
    stage: str
    name: str
    settings: Object
    identity: _Essential
    seed: Integer
    folder: str
    command: str


@dataclass(frozen=True, kw_only=True)
class FinishedRecord(LedgerRecord):
    """The record of a finished run."""

    data: str
    start: str | None
    domain: DomainRecord | None
    versions: dict[str, str]
    hardware: HardwareRecord
    epochs: list[EpochRecord]
    best_epoch: Count
    parameters: ParameterShare
    groups: dict[str, list[dict[str, Integer | float | str]]]
    validation: Metrics
    test: Metrics
    seconds_per_epoch: Seconds | None
    seconds: Seconds | None
    peak_memory_bytes: Count | None


@dataclass(frozen=True, kw_only=True)
class FailedRecord(LedgerRecord):
    """The record of a run that failed."""

    exit_code: Integer
    message: str


def epoch_record(content: Any) -> EpochRecord:
    """Check the metrics of an epoch.

    Raises:
        ValueError: ``epoch`` or ``split`` is missing, or a metric is no number.
    """
    record = checked(content, EpochRecord)
    checked(record, _Epoch)
    for name, value in record.items():
        if isinstance(value, str) and name != "split":
            raise ValueError(f"{name} is not a number")
    return record


def read_metrics(path: Path) -> list[EpochRecord]:
    """Read ``metrics.jsonl``.

    Raises:
        OSError: the file cannot be read.
        UserError: not a regular file, or a line is damaged.
    """
    require_regular(path)
    with path.open("rb") as file:
        records: list[EpochRecord] = []
        try:
            for line in file:
                records.append(epoch_record(record_of(line, Object)))
        except ValueError as error:
            raise damaged(f"{path}:{len(records) + 1}", error) from None
    return records
