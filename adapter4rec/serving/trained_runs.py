"""Trained models loaded again: a finished run, or a source model with an adapter file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter4rec.adapters.files import load_adapter, read_adapter
from adapter4rec.checkpoints.rebuilding import (
    KINDS,
    RebuiltSettings,
    rebuilt_model,
    rebuilt_settings,
)
from adapter4rec.checkpoints.settings import SourceSettings
from adapter4rec.data.domain import Domain
from adapter4rec.evaluation.settings import EvaluationSettings
from adapter4rec.models.parameters import count_parameters
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.identity import Identity, load_best
from adapter4rec.utils.checkpoint_file import weights_hash
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import read_json
from adapter4rec.utils.process_group import Process


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with its data.

    Attributes:
        folder: of the run; or the adapter file, where a source model and an adapter are combined.
        settings: of the run, those that its model and its evaluation follow from.
        domain: its data.
        model: with the weights of the best epoch, on the process's device.
    """

    folder: Path
    settings: RebuiltSettings
    domain: Domain
    model: TransRec


def load_run(folder: Path, process: Process, changed: Mapping[str, Any] | None = None) -> TrainedRun:
    """Load a finished run.

    Args:
        folder: of the run.
        process: this process.
        changed: paths that have changed since the run: users, items, images, backbone, and source_checkpoint
            (the model that the run started from); None for unchanged ones. Their contents must be those that
            the run read; that is checked.

    Raises:
        UserError: no run, a run without a model or a best epoch, or files that are missing or changed.
    """
    if not (folder / "settings.json").is_file():
        raise UserError(f"{folder}: no run there (settings.json is missing)")
    there = read_json(folder / "settings.json", ("identity", "settings"))
    try:
        identity = Identity(**there["identity"])
    except TypeError:
        identity = None
    if identity is None or identity.stage not in KINDS or not isinstance(there["settings"], dict):
        raise UserError(f"{folder}/settings.json: does not describe a run of this project")
    moved = _not_none(changed or {})
    if "source_checkpoint" in moved and identity.stage.endswith(SourceSettings.stage):
        moved["start_from"] = moved.pop("source_checkpoint")
    settings = rebuilt_settings(identity.stage, there["settings"], moved, (EvaluationSettings,))
    if settings.method == "popularity":
        raise UserError(f"{folder}: a run of the popularity baseline has no model")
    domain = settings.read_domain(process)
    model = rebuilt_model(settings, domain.interactions.n_items)
    for what, then, now in (
        ("data", identity.data, domain.identity),
        ("initial weights", identity.start, weights_hash(model.state_dict())),
    ):
        if then != now:
            raise UserError(f"{folder}: the {what} are not those of the run ({then} then, {now} now)")
    if count_parameters(model).trained:
        load_best(folder / "best.safetensors", identity, model)
    return TrainedRun(folder, settings, domain, model.to(process.device))


def load_adapted(
    source: Path, adapter: Path, process: Process, changed: Mapping[str, Any], *, force: bool = False
) -> TrainedRun:
    """Combine a source model and an adapter file; the data are those that the adapter was trained on.

    Args:
        source: the source model.
        adapter: the adapter file of a run.
        process: this process.
        changed: settings that have changed: paths of the data or the backbone; None for unchanged ones.
        force: load the adapter although it was trained on another source model.

    Raises:
        UserError: a file is missing or broken, the adapter is not that of a run, or they do not fit together.
    """
    description = read_adapter(adapter).description
    kind = description.get("stage")
    if kind not in KINDS or not isinstance(description.get("settings"), dict):
        raise UserError(f"{adapter}: does not record which data it was trained on; it is not from a run")
    moved = {"source_checkpoint": source} | _not_none(changed)
    settings = rebuilt_settings(kind, description["settings"], moved, (EvaluationSettings,))
    domain = settings.read_domain(process)
    model = rebuilt_model(settings, domain.interactions.n_items, adapters=False)
    load_adapter(model, adapter, force=force)
    return TrainedRun(adapter, settings, domain, model.to(process.device))


def _not_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
