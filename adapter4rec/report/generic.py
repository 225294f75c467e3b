"""The plan of a ledger without a study: its runs, grouped into rows by all settings but the seed."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from adapter4rec.runs.ledger import FINISHED, method_of, reads_content
from adapter4rec.runs.records import Record
from adapter4rec.utils.settings import as_argument

_ESSENTIAL = (
    *("users", "items", "images", "item_vectors", "fit", "interpolation", "decoding"),
    *("source_checkpoint", "start_from", "backbone", "epochs", "patience"),
)
"""Settings that affect the result although they are not part of a run's identity."""


def planned_runs_of(records: Collection[Record]) -> pd.DataFrame:
    """One line per run, in the order of the ledger, with its section, the name of its row, seed and key.

    A run that was continued for more epochs has several records; the last finished one counts.

    Args:
        records: the valid record of each key.
    """
    last = {_run_of(one): one for one in sorted(records, key=lambda one: one["outcome"] == FINISHED)}
    kept = [record for record in records if last[_run_of(record)] is record]
    runs = pd.DataFrame(kept).assign(section=list(map(section_of, kept)), scale=None)
    settings = pd.DataFrame(map(_essential_settings, runs["identity"], runs["settings"]))
    hashes = (str(record.get("data", "")).split() for record in kept)  # of clicks, and of contents
    settings["data"] = ["/".join(one[:8] for one in parts) for parts in hashes]
    alike = settings.groupby([runs["section"], settings["method"]], sort=False)
    runs["name"] = pd.concat([_names(str(method), of_method) for (_, method), of_method in alike])
    return runs[["section", "name", "scale", "seed", "key", "folder", "command"]]


def section_of(record: Record) -> str:
    """Stage and domain of a run."""
    domain = record.get("domain")
    name = domain["name"] if domain else Path(str(record["settings"].get("users") or "")).parent.name
    return f"{record['stage']}, {name}" if name else str(record["stage"])


def _essential_settings(identity: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """The settings by which runs are grouped into rows, as on the command line."""
    chosen = identity | {name: settings[name] for name in _ESSENTIAL if name in settings}
    chosen["method"] = method_of(chosen)
    if not reads_content(identity):
        chosen.pop("backbone", None)
    chosen.pop("peft", None)  # it is part of the method's name
    return {name: as_argument(value) for name, value in chosen.items() if name != "seed"}


def _run_of(record: Record) -> tuple[str, str]:
    """The folder and the settings of a run, which stay the same when it is continued for more epochs."""
    return record["folder"], json.dumps(record["identity"], sort_keys=True)


def _names(method: str, settings: pd.DataFrame) -> pd.Series[str]:
    """Names of the rows of a method: the method, and the settings that differ between its runs."""
    names = pd.Series(method, settings.index)
    for name, values in settings.items():
        if values.nunique(dropna=False) > 1:
            short = values.map(lambda text: "/".join(Path(text).parts[-2:]), na_action="ignore")
            shown = short if short.nunique() == values.nunique() else values
            names += (f", {name} " + shown).fillna("")
    return names
