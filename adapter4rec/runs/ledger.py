"""The ledger: one line for every run, with what it was asked, what it found and what it took.

A ledger is a file of JSON lines. Lines are appended whole, by any number of processes at once, and never
changed; where a run was repeated or went on, its last line counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash, json_object, locked_file, read_json
from adapter4rec.utils.settings import as_argument, options_of

FINISHED, FAILED = "finished", "failed"
_FORM = 1
_MODELS = ("source_checkpoint", "start_from")
_INPUTS = ("users", "items", "images", *_MODELS)
"""Settings whose files decide what a run computes."""
Record = dict[str, Any]


def run_key(settings: RunSettings) -> str:
    """Sixteen characters that are equal for runs that compute the same: settings, epochs, contents of files.

    Raises:
        UserError: one of the files cannot be read.
    """
    plain = settings.plain()
    parts = {
        "stage": settings.kind,
        "settings": settings.plain(runtime=False),
        "epochs": settings.epochs,
        "files": {name: _content(name, Path(plain[name])) for name in _INPUTS if plain.get(name)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _content(name: str, path: Path) -> str:
    """What the file or the LMDB of images that a setting names holds, as a hash."""
    if path.is_dir():
        return ImageDatabase(path).description.content
    try:
        return file_hash(path)
    except FileNotFoundError:
        hint = "" if name in _MODELS else "; Dataset/README.md tells what belongs where"
        raise UserError(f"--{name} {path}: no such file{hint}") from None
    except OSError as error:
        raise UserError(f"--{name} {path}: {error.strerror}") from None


def command_of(settings: RunSettings, without: Iterable[str] = ()) -> str:
    """A command line that repeats a run.

    Args:
        settings: of the run.
        without: settings that are not named.
    """
    defaults = {name: one.default for name, one in options_of(type(settings)).items()}
    config = getattr(settings, "adapter", None)
    if config is not None:
        defaults |= {name: one.default for name, one in options_of(type(config)).items()}
    plain, words = settings.plain(), []
    for name, default in defaults.items():
        if name not in without and as_argument(plain[name]) != as_argument(default):
            words += [f"--{name}", as_argument(plain[name])]
    return shlex.join(["python", "-m", settings.module, *words])


def append(ledger: Path, record: Mapping[str, Any]) -> None:
    """Append a line, whole, and let it reach the disk.

    A line that somebody's crash left unfinished stays a line of its own.
    """
    ledger.parent.mkdir(parents=True, exist_ok=True)
    said = {"ledger": _FORM, "time": datetime.now(timezone.utc).isoformat(timespec="seconds")} | dict(record)
    line = json.dumps(said, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with locked_file(ledger), ledger.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            line = (b"" if file.read(1) == b"\n" else b"\n") + line
        written = file.write(line)
        if written != len(line):  # a full disk: what is there is no line, and the next one begins anew
            raise UserError(f"{ledger}: a record could not be written whole; is the disk full?")
        os.fsync(file.fileno())


def read_ledger(ledger: Path) -> list[Record]:
    """All records, oldest first. Lines that are damaged are left out, and named on stderr.

    Raises:
        UserError: there is no such file, or it was written by a newer version.
    """
    if not ledger.is_file():
        raise UserError(f"{ledger}: no such ledger; runs leave one beside their folders")
    records = []
    # Not splitlines, which also ends lines at characters that JSON texts may hold as they are.
    for number, line in enumerate(ledger.read_text("utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json_object(line, ("ledger", "outcome", "key"))
        except ValueError as error:
            print(f"{ledger}:{number}: left out, damaged ({error})", file=sys.stderr)
            continue
        if record["ledger"] != _FORM:
            raise UserError(f"{ledger}:{number}: of form {record['ledger']}; this version reads form {_FORM}")
        records.append(record)
    return records


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """By key the last record of a finished run, or, where none has finished, the last failure."""
    found: dict[str, Record] = {}
    for record in records:
        before = found.get(record["key"])
        if before is None or record["outcome"] == FINISHED or before["outcome"] == FAILED:
            found[record["key"]] = record
    return found


def finished_record(folder: Path, settings: RunSettings) -> Record:
    """The record of a finished run, from the files in its folder.

    It tells of the epochs that were trained, where these were more than are asked for now.
    """
    said = read_json(folder / "settings.json", ("identity", "settings", "parameters", "versions", "hardware"))
    result = read_json(folder / "result.json", ("epoch", "validation", "test"))
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    epochs = [record for record in map(json.loads, lines) if record["split"] == "validation"]
    settings = replace(settings, epochs=max(settings.epochs, epochs[-1]["epoch"]))
    return {
        "outcome": FINISHED,
        **_asked(settings, folder),
        "data": said["identity"]["data"],
        "start": said["identity"]["start"],
        "domain": said.get("domain"),
        "versions": said["versions"],
        "hardware": said["hardware"],
        "epochs": epochs,
        "best_epoch": result["epoch"],
        "validation": result["validation"],
        "test": result["test"],
        "groups": result.get("groups", {}),
        "parameters": {"share": result["trained_share"], **said["parameters"]},
        "seconds_per_epoch": result["seconds_per_epoch"],
        "seconds": result.get("seconds"),
        "peak_memory_bytes": result["peak_memory_bytes"],
    }


def failed_record(folder: Path, settings: RunSettings, exit_code: int, message: str) -> Record:
    """The record of a run that ended before it had a result."""
    return {
        "outcome": FAILED,
        **_asked(settings, folder),
        "exit_code": exit_code,
        "message": message,
    }


def _asked(settings: RunSettings, folder: Path) -> Record:
    return {
        "key": run_key(settings),
        "stage": settings.kind,
        "name": folder.name,
        "settings": settings.plain(),
        "identity": settings.plain(runtime=False),
        "seed": settings.seed,
        "folder": str(folder.absolute()),
        "command": command_of(settings),
    }
