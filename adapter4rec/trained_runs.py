"""Finished runs, loaded again: the model with its best weights, and its domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.distributed import Process
from adapter4rec.domains import Domain
from adapter4rec.errors import UserError
from adapter4rec.files import read_json
from adapter4rec.modalities import MODALITIES
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs import open_run
from adapter4rec.source_stage import source_model
from adapter4rec.stages import (
    ImageSourceSettings,
    ImageTargetSettings,
    RunSettings,
    TextSourceSettings,
    TextTargetSettings,
)
from adapter4rec.target_stage import adapted_model
from adapter4rec.training.parameters import count_parameters


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
        folder: of the run.
        settings: that it ran with.
        domain: its data.
        model: with the weights of its best epoch, on the process's device.
    """

    folder: Path
    settings: RunSettings
    domain: Domain
    model: TransRec


def load_run(folder: Path, process: Process) -> TrainedRun:
    """Load a finished run; its data, backbone and source model must be where they were.

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
    settings = stage.settings.from_values(there["settings"] | {"run_folder": folder, "mode": "test"})
    if settings.method == "popularity":
        raise UserError(f"{folder}: a run of the popularity baseline has no model")
    domain = MODALITIES[settings.modality].load_domain(settings, process)
    model = stage.build(settings, domain.interactions.n_items)
    run = open_run(name, settings, domain, model, process)
    if count_parameters(model).trained:
        run.load_best(model)
    return TrainedRun(folder, settings, domain, model.to(process.device))
