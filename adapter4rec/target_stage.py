"""A run on a target domain, whatever its modality: from the source model to the tested, adapted one."""

from __future__ import annotations

import torch

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.files import save_adapter
from adapter4rec.checkpoints.source_models import put_into, read_source_model
from adapter4rec.modalities import MODALITIES
from adapter4rec.models.building import build_model
from adapter4rec.models.sharding import place
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.run import open_run
from adapter4rec.stages import TargetSettings
from adapter4rec.training.cached_states import with_cached_states
from adapter4rec.training.fit import carry_out
from adapter4rec.training.optimizer import train_only
from adapter4rec.training.testing import carry_out_popularity
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process, joined_process


def carry_out_target(settings: TargetSettings) -> None:
    """Check what would be noticed too late, and carry out a run.

    Raises:
        UserError: the method starts from a source model, and none is named or none is there.
    """
    if settings.needs_source:  # before the catalogue is read and tokenised
        require_source(settings)
    with joined_process(settings.device, settings.threads) as process:
        run_target(settings, process)


def run_target(settings: TargetSettings, process: Process) -> None:
    """One run, from the files to the tested model."""
    modality = MODALITIES[settings.modality]
    domain = modality.load_domain(settings, process)
    stage = f"{modality.name} target"
    if settings.method == "popularity":
        carry_out_popularity(domain, process, open_run(stage, settings, domain, None, process))
        return
    model = adapted_model(settings, domain.interactions.n_items)
    run = open_run(stage, settings, domain, model, process)
    place(model, process, sharded=settings.shard)
    if settings.method == "head" or settings.cache_frozen:
        domain = with_cached_states(domain, model, settings, process)
    result = carry_out(model, domain, settings, process, run)
    if settings.adapter is not None and settings.mode == "train" and process.is_first:
        path = run.folder / "adapter.safetensors"
        save_adapter(model, path, {"stage": stage, "settings": settings.plain(), "result": result})
        run.say(f"the adapter alone: {path}")


def adapted_model(settings: TargetSettings, n_items: int) -> TransRec:
    """The model that the method starts from, with what it trains requiring gradients.

    Raises:
        UserError: the backbone or the source model is missing, broken or does not fit.
    """
    model = model_without_adapter(settings, n_items)
    if settings.adapter is not None:
        torch.manual_seed(settings.seed)
        add_adapters(model, settings.adapter)
    train_only(model, settings.trained_parts)
    return model


def model_without_adapter(settings: TargetSettings, n_items: int) -> TransRec:
    """The source model, or a new one where the method starts from none.

    Raises:
        UserError: the backbone or the source model is missing, broken or does not fit.
    """
    model = build_model(settings, MODALITIES[settings.modality].build_encoder, n_items)
    if settings.needs_source:
        start_from_source(model, settings)
    return model


def start_from_source(model: TransRec, settings: TargetSettings) -> None:
    """Put the source model's weights into the target's model.

    Raises:
        UserError: none is named, or it cannot be read, or does not fit, or has another objective, or was
            trained on another kind of backbone.
    """
    require_source(settings)
    source = read_source_model(settings.source_checkpoint)
    if source.objective not in (None, settings.objective):
        raise UserError(
            f"{source.path}: trained with the objective {source.objective.value}; a target is trained "
            f"with its source's (--objective {source.objective.value})"
        )
    put_into(model, source)


def require_source(settings: TargetSettings) -> None:
    """Raise a UserError where no source model is named, or none is there."""
    path = settings.source_checkpoint
    if path is None:
        raise UserError(f"--source_checkpoint is needed: {settings.method} starts from a source model")
    if not path.is_file():
        tree = "CV" if settings.modality == "image" else "Text"
        raise UserError(
            f"{path}: no such checkpoint; source training writes it (see Pretraining/{tree}/script), or name "
            "another with --source_checkpoint"
        )
