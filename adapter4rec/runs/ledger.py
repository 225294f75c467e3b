"""The ledger: one record per run with its settings, results, time and memory.

A ledger is a JSON Lines file. Records are appended atomically, also by concurrent processes, and never
changed. If a run was repeated or resumed, its last record is valid.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from adapter4rec.adapters.peft import PeftConfig
from adapter4rec.checkpoints.settings import WITHOUT_CONTENT
from adapter4rec.runs.inputs import input_hashes
from adapter4rec.runs.records import (
    FailedRecord,
    FinishedRecord,
    Record,
    Result,
    RunDescription,
    read_metrics,
)
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import locked_file, require_regular
from adapter4rec.utils.plain_text import json_text
from adapter4rec.utils.records import Object, checked, read_record, record_of
from adapter4rec.utils.settings import as_argument

FINISHED, FAILED = "finished", "failed"
_VERSION = 1
_OF_RESULT = ("validation", "test", "seconds_per_epoch", "seconds", "peak_memory_bytes")
"""Entries of ``result.json`` that the record has, too."""


@dataclass(frozen=True)
class _Version:
    ledger: int


@dataclass(frozen=True)
class _Outcome:
    outcome: Literal["finished", "failed"]


def run_key(settings: RunSettings, files: Mapping[str, str] | None = None) -> str:
    """A hash of settings, number of epochs, patience and contents of input files (16 hexadecimal digits).

    Args:
        settings: settings of the run.
        files: hashes of the input files when they were read; default: of the files as they are.

    Raises:
        UserError: an input file cannot be read.
    """
    parts = {
        "stage": settings.kind,
        "settings": settings.plain(runtime=False),
        "epochs": settings.epochs,
        "patience": settings.patience,
        "files": input_hashes(settings) if files is None else files,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def command_of(settings: RunSettings, without: Iterable[str] = ()) -> str:
    """A command line that repeats a run; options with default values are omitted.

    Args:
        settings: settings of the run.
        without: names of further options to omit.
    """
    options = type(settings).options({"method": settings.method})
    plain, words = settings.plain(), []
    for name, one in options.items():
        if name not in without and as_argument(plain[name]) != as_argument(one.default):
            words += [f"--{name}", as_argument(plain[name])]
    return shlex.join(["python", "-m", settings.module, *words])


def method_of(settings: Mapping[str, Any]) -> str:
    """The method of a run for a table: its name, for PEFT with that of PEFT's method."""
    method = str(settings["method"])
    return f"peft, {PeftConfig(peft=settings['peft']).label}" if method == "peft" else method


def reads_content(settings: Mapping[str, Any]) -> bool:
    """Whether the method of a run reads the content of items, and so has a backbone."""
    return settings["method"] not in WITHOUT_CONTENT


def require_writable(ledger: Path) -> None:
    """Raise a UserError if a ledger cannot be written."""
    place = next(path for path in (ledger, *ledger.absolute().parents) if path.exists())
    folder = ledger.absolute().parent if ledger.exists() else place  # where its lock is
    if not (os.access(place, os.W_OK) and os.access(folder, os.W_OK)):
        raise UserError(f"{ledger}: cannot be written: no permission; choose another --ledger")


def append(ledger: Path, record: Mapping[str, Any]) -> None:
    """Append a record and flush it to disk (fsync).

    If the last line is incomplete, after a crash, the record starts on a new line.

    Raises:
        UserError: the record could not be written completely.
    """
    ledger.parent.mkdir(parents=True, exist_ok=True)
    header = {"ledger": _VERSION, "time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    line = json_text(header | dict(record), allow_nan=False).encode() + b"\n"
    lock = ledger.with_name(f".{ledger.name}.lock")
    with locked_file(lock), ledger.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            line = (b"" if file.read(1) == b"\n" else b"\n") + line
        written = file.write(line)
        if written != len(line):  # disk full; readers skip the incomplete line
            raise UserError(f"{ledger}: cannot write the record completely; is the disk full?")
        os.fsync(file.fileno())


def read_ledger(ledger: Path) -> list[Record]:
    """All records, oldest first. Damaged lines are skipped with a warning on stderr.

    Raises:
        UserError: the file does not exist, is not a regular file, or has another format version.
    """
    if not ledger.exists():
        raise UserError(f"{ledger}: no such ledger; each run writes one next to its run folder")
    require_regular(ledger)
    records = []
    with ledger.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = record_of(line, Object)
                version = checked(record, _Version).ledger
                if version == _VERSION:
                    kind = checked(record, _Outcome).outcome
                    checked(record, FinishedRecord if kind == FINISHED else FailedRecord)
            except ValueError as error:
                print(f"{ledger}:{number}: skipped damaged line ({error})", file=sys.stderr)
                continue
            if version != _VERSION:
                raise UserError(
                    f"{ledger}:{number}: unsupported ledger version {version}; expected {_VERSION}"
                )
            records.append(record)
    return records


def latest(records: Sequence[Record]) -> dict[str, Record]:
    """For each key the last record of a finished run or, if none has finished, the last failed one."""
    last = {one["key"]: one for one in sorted(records, key=lambda one: one["outcome"] == FINISHED)}
    return {record["key"]: last[record["key"]] for record in records}


def finished_runs(ledger: Path) -> dict[str, Record]:
    """The last record of each finished run by its key; none if the ledger does not exist."""
    records = latest(read_ledger(ledger)) if ledger.exists() else {}
    return {key: record for key, record in records.items() if record["outcome"] == FINISHED}


def validation_history(folder: Path) -> list[Record]:
    """The validation records of a run's epochs, from its ``metrics.jsonl``.

    Raises:
        OSError: the file cannot be read.
        UserError: not a regular file, or damaged.
    """
    return [record for record in read_metrics(folder / "metrics.jsonl") if record["split"] == "validation"]


def finished_record(folder: Path, settings: RunSettings) -> Record:
    """The record of a finished run, from the files in its run folder.

    If more epochs were trained than ``settings`` requests, the record has the trained number.
    """
    recorded = read_record(folder / "settings.json", RunDescription)
    result = read_record(folder / "result.json", Result)
    epochs = validation_history(folder)
    if not epochs:
        raise UserError(f"{folder}/metrics.jsonl: no validation; the file is damaged")
    settings = replace(settings, epochs=max(settings.epochs, epochs[-1]["epoch"]))
    return {
        **_common_fields(FINISHED, settings, folder, run_key(settings, recorded.files)),
        "data": recorded.identity["data"],
        "start": recorded.identity["start"],
        "domain": recorded.domain,
        "versions": recorded.versions,
        "hardware": recorded.hardware,
        "epochs": epochs,
        "best_epoch": result.epoch,
        "parameters": {"share": result.trained_share, **recorded.parameters},
        "groups": result.groups,
        **{name: getattr(result, name) for name in _OF_RESULT},
    }


def failed_record(folder: Path, settings: RunSettings, key: str, exit_code: int, message: str) -> Record:
    """The record of a run that failed; ``key`` is that with which it was planned."""
    return _common_fields(FAILED, settings, folder, key) | {"exit_code": exit_code, "message": message}


def _common_fields(outcome: str, settings: RunSettings, folder: Path, key: str) -> Record:
    return {
        "outcome": outcome,
        "key": key,
        "stage": settings.kind,
        "name": folder.name,
        "settings": settings.plain(),
        "identity": settings.plain(runtime=False),
        "seed": settings.seed,
        "folder": str(folder.absolute()),
        "command": command_of(settings),
    }
