"""Loading trained models: a finished run, or a source model with an adapter file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapter4rec.adapters.files import load_adapter, read_adapter
from adapter4rec.checkpoints.loading import recorded_settings
from adapter4rec.checkpoints.rebuilding import RebuiltSettings, rebuilt_model, rebuilt_settings
from adapter4rec.checkpoints.settings import WITHOUT_MODEL, SourceSettings
from adapter4rec.checkpoints.source_models import load_source_weights, read_source_model
from adapter4rec.data.domain import Domain
from adapter4rec.models.parameters import count_parameters
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.identity import Identity, initial_hash, load_best
from adapter4rec.runs.inputs import changed_inputs
from adapter4rec.runs.records import RunDescription
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process
from adapter4rec.utils.records import Object, checked_in, read_record


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with its data.

    Attributes:
        folder: the run folder, or the adapter file if a source model and an adapter were combined.
        settings: the run's settings that determine its model and domain.
        domain: the data of the run.
        model: the model with the weights of the best epoch, in eval mode on the device of the process.
    """

    folder: Path
    settings: RebuiltSettings
    domain: Domain
    model: TransRec


@dataclass(frozen=True)
class _TrainedOn:
    """What the description of a run's adapter file has of the run."""

    stage: str
    settings: Object
    folder: str | None = None


def load_run(folder: Path, process: Process, changed: Mapping[str, Any] | None = None) -> TrainedRun:
    """Load a finished run.

    Args:
        folder: the run folder.
        process: this process.
        changed: paths that have changed since the run, by setting: users, items, images, backbone,
            cache_folder, and source_checkpoint (the model that the run started from); None for unchanged
            ones. The contents of the files must be unchanged, which is checked.

    Raises:
        UserError: not a run folder, a run without a model or a best epoch, or files that are missing or have
            changed.
    """
    if not (folder / "settings.json").is_file():
        raise UserError(f"{folder}: not a run folder (settings.json not found)")
    recorded = read_record(folder / "settings.json", RunDescription)
    identity = Identity(**recorded.identity)
    moved = dict(changed or {})
    if identity.stage.endswith(SourceSettings.stage):
        moved["start_from"] = moved.pop("source_checkpoint", None)
    settings = rebuilt_settings(
        folder / "settings.json", identity.stage, recorded.settings, moved, recorded.folder
    )
    if settings.method in WITHOUT_MODEL:
        raise UserError(f"{folder}: --method {settings.method} has no model")
    domain = settings.read_domain(process)
    model = rebuilt_model(settings, domain.interactions.n_items)
    now = replace(identity, data=domain.identity, start=initial_hash(model))
    if changes := now.differences(recorded.identity):
        changes = changed_inputs(recorded.files, settings) or changes
        raise UserError(f"{folder}: the data or the initial weights have changed: {'; '.join(changes)}")
    if count_parameters(model).trained:
        load_best(folder / "best.safetensors", identity, model)
    return TrainedRun(folder, settings, domain, model.to(process.device).eval())


def load_adapted(
    source: Path, adapter: Path, process: Process, changed: Mapping[str, Any], *, force: bool = False
) -> TrainedRun:
    """Load a source model with an adapter file, and the data that the adapter was trained on.

    Args:
        source: the source model.
        adapter: the adapter file of a run.
        process: this process.
        changed: paths of the data or the backbone that have changed, by setting; None for unchanged ones.
        force: load the adapter even if it was trained on another source model.

    Raises:
        UserError: a file is missing or damaged, the adapter does not fit the source model, or its file was
            not written by a run and ``changed`` does not name the data.
    """
    description = read_adapter(adapter).description
    if "stage" in description and "settings" in description:
        trained = checked_in(adapter, description, _TrainedOn)
        moved = {**changed, "source_checkpoint": source}
        settings = rebuilt_settings(adapter, trained.stage, trained.settings, moved, trained.folder)
    else:
        settings = _settings_of_source(source, adapter, changed)
    domain = settings.read_domain(process)
    model = rebuilt_model(settings, domain.interactions.n_items, adapters=False)
    if isinstance(settings, SourceSettings):
        load_source_weights(model, read_source_model(source))
    load_adapter(model, adapter, force=force)
    return TrainedRun(adapter, settings, domain, model.to(process.device).eval())


def _settings_of_source(source: Path, adapter: Path, changed: Mapping[str, Any]) -> RebuiltSettings:
    """The settings of a source model with other data, for an adapter that no run has written."""
    if None in (changed.get("users"), changed.get("items")):
        raise UserError(
            f"{adapter}: does not record the data that it was trained on, as it was not written by a run; "
            "name them with --users-file and --items-file, and --images in an image model"
        )
    model = read_source_model(source)
    modality, recorded = recorded_settings(model)
    kind = f"{modality} {SourceSettings.stage}"
    return rebuilt_settings(source, kind, recorded, changed, model.description.get("folder"))
