"""Exporting the source model of a run, from which target domains start."""

from __future__ import annotations

from pathlib import Path

from adapter4rec.checkpoints.settings import SourceSettings
from adapter4rec.checkpoints.source_models import export_source_model, require_export_path
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.records import Record
from adapter4rec.runs.run import Run
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.checkpoint_file import read_description
from adapter4rec.utils.errors import UserError


class SourceRunSettings(SourceSettings, RunSettings):
    """Settings of a run that trains a source model."""


def require_export(settings: SourceRunSettings, run: Run) -> None:
    """Check ``--export`` before training.

    Raises:
        UserError: the file name has no supported extension, or the file belongs to another run.
    """
    path = settings.export
    if path is not None and settings.mode == "train":
        require_export_path(path, overwrite=True)  # an existing file is checked below
        run.process.on_rank0(lambda: _require_replaceable(path, settings, run))


def _require_replaceable(path: Path, settings: SourceRunSettings, run: Run) -> None:
    if settings.overwrite or not path.exists():
        return
    description = read_description(path)
    if run.identity.differences(description.get("identity")):
        raise UserError(
            f"--export {path}: already exists, written by the run {description.get('run', 'unknown')}; "
            "choose another file, or replace it with --overwrite true"
        )


def export_for_targets(model: TransRec, settings: SourceRunSettings, run: Run, result: Record) -> None:
    """Write the model with the weights of the best epoch to ``--export``, if set.

    Raises:
        UserError: another run has written the file since training started.
    """
    if settings.export is None or not run.process.is_rank0:
        return
    _require_replaceable(settings.export, settings, run)
    description = run.describe("", result)
    if isinstance(model.item_encoder, ContentItemEncoder):
        description["encoder"] = model.item_encoder.describe()
    export_source_model(model.state_dict(), settings.export, settings.objective, description)
    run.log(f"source model: {settings.export}")
