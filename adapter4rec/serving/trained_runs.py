"""What runs have left, loaded again: a finished run, or a source model with an adapter file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapter4rec.adapters.files import load_adapter, read_adapter
from adapter4rec.domains import Domain
from adapter4rec.modalities import MODALITIES
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.run import open_run
from adapter4rec.source_stage import source_model
from adapter4rec.stages import (
    ImageSourceSettings,
    ImageTargetSettings,
    RunSettings,
    SourceSettings,
    TextSourceSettings,
    TextTargetSettings,
)
from adapter4rec.target_stage import adapted_model, model_without_adapter
from adapter4rec.training.optimizer import count_parameters
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import read_json
from adapter4rec.utils.process_group import Process


@dataclass(frozen=True)
class _Stage:
    settings: type[RunSettings]
    build: Callable[..., TransRec]


_STAGES = {
    "text source": _Stage(TextSourceSettings, source_model),
    "image source": _Stage(ImageSourceSettings, source_model),
    "text target": _Stage(TextTargetSettings, adapted_model),
    "image target": _Stage(ImageTargetSettings, adapted_model),
}


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run left.

    Attributes:
        folder: of the run; the file of the adapter, where a source model and an adapter are put together.
        settings: that it ran with.
        domain: its data.
        model: with the weights of its best epoch, on the process's device.
    """

    folder: Path
    settings: RunSettings
    domain: Domain
    model: TransRec


def load_run(folder: Path, process: Process, changed: Mapping[str, Any] | None = None) -> TrainedRun:
    """Load a finished run.

    Args:
        folder: of the run.
        process: where it is computed.
        changed: paths that are others now: users, items, images, backbone, and source_checkpoint (the model
            that the run started from); None for others. What lies there must be what the run read: that is
            compared.

    Raises:
        UserError: no run, a run without a model or without a best epoch, or files that are gone or changed.
    """
    if not (folder / "settings.json").is_file():
        raise UserError(f"{folder}: no run there (settings.json is missing)")
    there = read_json(folder / "settings.json", ("identity", "settings"))
    name = there["identity"].get("stage") if isinstance(there["identity"], dict) else None
    if name not in _STAGES or not isinstance(there["settings"], dict):
        raise UserError(f"{folder}/settings.json: describes no run of this project")
    stage = _STAGES[name]
    changed = _not_none(changed or {})
    if "source_checkpoint" in changed and issubclass(stage.settings, SourceSettings):
        changed["start_from"] = changed.pop("source_checkpoint")
    values = there["settings"] | {"run_folder": folder, "mode": "test"}
    settings = stage.settings.from_values(values | changed)
    if settings.method == "popularity":
        raise UserError(f"{folder}: a run of the popularity baseline has no model")
    domain = MODALITIES[settings.modality].load_domain(settings, process)
    model = stage.build(settings, domain.interactions.n_items)
    # Another place of the backbone is no other run: the weights themselves are compared.
    same = replace(settings, backbone=there["settings"].get("backbone", settings.backbone))
    run = open_run(name, same, domain, model, process)
    if count_parameters(model).trained:
        run.load_best(model)
    return TrainedRun(folder, settings, domain, model.to(process.device))


def load_adapted(
    source: Path, adapter: Path, process: Process, changed: Mapping[str, Any], *, force: bool = False
) -> TrainedRun:
    """Put a source model and an adapter file together; the data are those that the adapter was trained on.

    Args:
        source: the source model.
        adapter: the adapter file of a run.
        process: where it is computed.
        changed: settings that are others now: where the data or the backbone lie; None for others.
        force: load the adapter although it was trained on another source model.

    Raises:
        UserError: a file is missing or broken, the adapter is none of a run, or they do not belong together.
    """
    said = read_adapter(adapter).description
    name = said.get("stage")
    if name not in _STAGES or not isinstance(said.get("settings"), dict):
        raise UserError(f"{adapter}: does not say which data it was trained on; it is not the file of a run")
    values = said["settings"] | {"source_checkpoint": source, "run_folder": None, "resume": False}
    settings = _STAGES[name].settings.from_values(values | _not_none(changed))
    domain = MODALITIES[settings.modality].load_domain(settings, process)
    model = model_without_adapter(settings, domain.interactions.n_items)
    load_adapter(model, adapter, force=force)
    return TrainedRun(adapter, settings, domain, model.to(process.device))


def _not_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
