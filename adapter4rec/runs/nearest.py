"""What ``--resume`` says if there is nothing to resume: which run is nearly the same, and what differs."""

from __future__ import annotations

from pathlib import Path

from adapter4rec.runs.identity import Identity
from adapter4rec.runs.records import RunDescription
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import read_record

_MOST_DIFFERENCES = 3
"""A run that differs in more is another experiment."""


def nothing_to_resume(folder: Path, identity: Identity, *, named: bool) -> str:
    """A message that a new run begins although ``--resume`` was given.

    Args:
        folder: the run folder, which has no run.
        identity: of the run.
        named: whether the user chose the folder. Otherwise its name depends on the settings, and a run with
            slightly other settings is in a folder next to it.
    """
    message = f"nothing to resume in {folder}; a new run begins"
    others = [] if named else _nearly_equal(folder, identity)
    if not others:
        return message
    differences, other = min(others, key=lambda one: len(one[0]))
    return f"{message}. {other} has nearly the same run:\n  " + "\n  ".join(differences)


def _nearly_equal(folder: Path, identity: Identity) -> list[tuple[list[str], Path]]:
    """Runs of the same stage in folders next to this one with few differences, newest first."""
    found = []
    paths = sorted(folder.parent.glob("*/settings.json"), key=lambda path: -path.stat().st_mtime)
    for path in paths:
        try:
            recorded = read_record(path, RunDescription).identity
        except (UserError, OSError):
            continue  # a folder of another program, or damaged; it is not the one that was asked for
        differences = identity.differences(recorded)
        if recorded["stage"] == identity.stage and len(differences) <= _MOST_DIFFERENCES:
            found.append((differences, path.parent))
    return found
