"""Settings of a run: its folder, what is done with it, and on which device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from adapter4rec.checkpoints.settings import StageSettings
from adapter4rec.evaluation.settings import EvaluationSettings
from adapter4rec.models.settings import BackboneSettings, ModelSettings
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import option


@dataclass(frozen=True, kw_only=True)
class RunSettings(EvaluationSettings, BackboneSettings, ModelSettings, StageSettings):
    """Run.

    All settings that define a run, its run folder and its ledger record.

    Attributes:
        modality: ``text`` or ``image``.
        module: the training module, as ``Downstream.Text.train``.
    """

    modality: ClassVar[str]
    module: ClassVar[str]

    epochs: int = option(
        60,
        "number of epochs; may be increased when a run is resumed, with a constant schedule and validation "
        "after each epoch",
        least=0,
        runtime=True,
    )
    patience: int | None = option(
        None,
        "stop after this many validations without a higher HR@10; default: train all epochs",
        least=1,
        runtime=True,
    )
    mode: str = option(
        "train", "train, or evaluate a finished run again", choices=("train", "test"), runtime=True
    )
    resume: bool = option(False, "resume an interrupted run; report a finished run", runtime=True)
    run_folder: Path | None = option(
        None, "run folder; default: named after the settings, in runs/", runtime=True
    )
    ledger: Path | None = option(
        None,
        "ledger to append the run's record to; default: ledger.jsonl next to the run folder",
        runtime=True,
    )
    tensorboard: bool = option(False, "write TensorBoard logs", runtime=True)
    device: str = option("auto", "auto, cpu, cuda, or cuda:N", runtime=True)
    threads: int = option(0, "CPU threads per process; 0: PyTorch's default", least=0, runtime=True)

    @property
    def extendable(self) -> bool:
        """Whether a run with more epochs begins like this one, so that this one can be continued."""
        return True

    @property
    def ledger_path(self) -> Path:
        """The ledger of the run."""
        runs = self.run_folder.absolute().parent if self.run_folder else REPOSITORY / "runs"
        return self.ledger or runs / "ledger.jsonl"

    @property
    def kind(self) -> str:
        """Modality and stage, as ``text source``."""
        return f"{self.modality} {self.stage}"
