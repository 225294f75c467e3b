"""A run on a source domain, whatever its modality: from the files to the tested and exported model."""

from __future__ import annotations

from adapter4rec.checkpoints.source_models import (
    export_source_model,
    put_into,
    read_source_model,
    require_export_path,
)
from adapter4rec.modalities import MODALITIES
from adapter4rec.models.backbones import described
from adapter4rec.models.building import build_model
from adapter4rec.models.sharding import place, whole_state
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.run import Run, open_run
from adapter4rec.stages import SourceSettings
from adapter4rec.training.cached_states import with_cached_states
from adapter4rec.training.fit import carry_out
from adapter4rec.training.optimizer import train_only
from adapter4rec.utils.checkpoint_file import read_description
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process, joined_process


def carry_out_source(settings: SourceSettings) -> None:
    """Check what would be noticed too late, and carry out a run."""
    if settings.export:
        require_export_path(settings.export)  # before hours of training, not after
    with joined_process(settings.device, settings.threads) as process:
        run_source(settings, process)


def run_source(settings: SourceSettings, process: Process) -> None:
    """One run, from the files to the tested and exported model."""
    modality = MODALITIES[settings.modality]
    domain = modality.load_domain(settings, process)
    model = source_model(settings, domain.interactions.n_items)
    run = open_run(f"{modality.name} source", settings, domain, model, process)
    if settings.export and settings.mode == "train":  # now, and not after hours of training
        process.first_decides(lambda: require_replaceable(settings, run))
    place(model, process, sharded=settings.shard)
    if settings.method == "head":
        domain = with_cached_states(domain, model, settings, process)
    result = carry_out(model, domain, settings, process, run)
    if not settings.export or settings.mode != "train":
        return
    weights = whole_state(model)
    if process.is_first:
        require_replaceable(settings, run)  # another run may have exported meanwhile
        said = run.described("", result)
        if settings.uses_content:
            said["encoder"] = described(model.item_encoder.backbone.config)
        export_source_model(weights, settings.export, settings.objective, said)
        run.say(f"exported for target domains: {settings.export}")


def require_replaceable(settings: SourceSettings, run: Run) -> None:
    """Raise a UserError where ``--export`` names a file that another run or program has written."""
    if settings.overwrite or not settings.export.exists():
        return
    description = read_description(settings.export)
    if run.identity.differences(description.get("identity")):
        raise UserError(
            f"--export {settings.export}: exists, written by the run {description.get('run', 'unknown')}; "
            "name another file, or replace it with --overwrite true"
        )


def source_model(settings: SourceSettings, n_items: int) -> TransRec:
    """The model that source training starts from, with what it trains requiring gradients.

    Raises:
        UserError: the backbone, or the weights to start from, are missing, broken or do not fit.
    """
    model = build_model(settings, MODALITIES[settings.modality].build_encoder, n_items)
    if settings.start_from is not None:
        put_into(model, read_source_model(settings.start_from))
    train_only(model, settings.trained_parts)
    return model
