"""Exporting the source model of a run, for target domains to start from."""

from __future__ import annotations

from adapter4rec.checkpoints.settings import SourceSettings
from adapter4rec.checkpoints.source_models import export_source_model, require_export_path
from adapter4rec.models.backbones import described
from adapter4rec.models.sharding import whole_state
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.run import Record, Run
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.checkpoint_file import read_description
from adapter4rec.utils.errors import UserError


class SourceRunSettings(SourceSettings, RunSettings):
    """Settings of a run that trains a source model."""


def require_export(settings: SourceRunSettings, run: Run) -> None:
    """Raise a UserError where ``--export`` names an unreadable kind of file, or the file of another run."""
    if settings.export is not None and settings.mode == "train":
        require_export_path(settings.export)
        run.process.on_rank0(lambda: _require_replaceable(settings, run))


def _require_replaceable(settings: SourceRunSettings, run: Run) -> None:
    path = settings.export
    if settings.overwrite or not path.exists():
        return
    description = read_description(path)
    if run.identity.differences(description.get("identity")):
        raise UserError(
            f"--export {path}: exists, written by the run {description.get('run', 'unknown')}; name another "
            "file, or replace it with --overwrite true"
        )


def export_for_targets(model: TransRec, settings: SourceRunSettings, run: Run, result: Record) -> None:
    """Write the model with the weights of its best epoch to ``--export``, where that is given.

    Raises:
        UserError: another run has written the file meanwhile.
    """
    if settings.export is None:
        return
    weights = whole_state(model)
    if not run.process.is_rank0:
        return
    _require_replaceable(settings, run)
    description = run.described("", result)
    if settings.uses_content:
        description["encoder"] = described(model.item_encoder.backbone.config)
    export_source_model(weights, settings.export, settings.objective, description)
    run.say(f"source model: {settings.export}")
