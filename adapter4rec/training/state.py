"""The training state, saved and restored; on a CPU, a resumed run is bit for bit an uninterrupted one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from adapter4rec.data.batches import TrainingSet
from adapter4rec.evaluation.leave_one_out import Split
from adapter4rec.models.parameters import trained_state
from adapter4rec.models.weights import load_into
from adapter4rec.runs.identity import checked_description
from adapter4rec.runs.records import EpochRecord, Record, epoch_record
from adapter4rec.runs.run import Run
from adapter4rec.training.setup import TrainingSetup
from adapter4rec.utils.checkpoint_file import (
    read_checkpoint,
    remove_checkpoint,
    rename_checkpoint,
    write_checkpoint,
)
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import Count, Object, Positive, Seconds, checked_in, damaged

_MODEL, _OPTIMIZER = "model/", "optimizer/"
_LAST = "state of a run"
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW keeps of each parameter."""


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        epoch: the current epoch, from 1.
        step: the next step of the epoch, from 0.
        loss_sum: sum of the losses of the steps so far in this epoch.
        seconds: training time so far in this epoch, in seconds.
        waited: part of ``seconds`` spent waiting for batches.
        history: records of the finished epochs.
        best: record of the best epoch; the earliest if several are equal.
        precision: number format of training.
    """

    epoch: Positive = 1
    step: Count = 0
    loss_sum: float = 0.0
    seconds: Seconds = 0.0
    waited: Seconds = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    best: EpochRecord | None = None
    precision: str = ""

    def fault(self) -> str | None:
        """Why this is no progress that a run can have; None if it is one."""
        try:
            epochs = [epoch_record(record)["epoch"] for record in self.history]
        except ValueError as error:
            return f"history: {error}"
        if len(epochs) != self.epoch - 1 or epochs != list(range(1, self.epoch)):
            return f"epoch {self.epoch}, but the history has the epochs {epochs[:3]} …"
        return (
            None if self.best is None or self.best in self.history else "the best epoch is not in the history"
        )

    def record(self, examples: TrainingSet, metrics: Record, evaluation_seconds: float) -> Record:
        """The record of the epoch, after its last step and its validation."""
        return {
            "epoch": self.epoch,
            "split": Split.VALIDATION.value,
            "loss": self.loss_sum / examples.steps,
            "seconds": self.seconds,
            "sequences_per_second": len(examples.users) / self.seconds,
            "input_wait": 100 * self.waited / self.seconds,
            **({"evaluation_seconds": evaluation_seconds} if metrics else {}),
            **metrics,
        }

    def finish_epoch(self, record: Record) -> bool:
        """Add the record of an epoch and advance to the next. Returns whether it is the best so far."""
        self.history.append(record)
        validated = "HR@10" in record
        is_best = validated and (self.best is None or record["HR@10"] > self.best["HR@10"])
        if is_best:
            self.best = record
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum = self.seconds = self.waited = 0.0
        return is_best


@dataclass(frozen=True)
class _State:
    """The record of ``last.safetensors``."""

    progress: Object
    scaler: dict[str, int | float]


def save_state(run: Run, setup: TrainingSetup, progress: Progress) -> None:
    """Write ``last.safetensors`` atomically, then the metrics, on rank 0. The state before it is kept.

    No random state is saved, as batches and dropout depend only on (seed, epoch, step, rank).
    """
    if not run.process.is_rank0:
        return
    tensors = {_MODEL + name: tensor for name, tensor in trained_state(setup.model).items()}
    names = _parameter_names(setup.optimizer)
    for index, values in setup.optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{key}/{names[index]}": value for key, value in values.items()}
    record = {"progress": asdict(progress), "scaler": setup.scaler.state_dict()}
    if run.last_path.exists():
        rename_checkpoint(run.last_path, run.previous_path)
    write_checkpoint(run.last_path, tensors, run.describe(_LAST, record))
    run.write_metrics(progress.history)


def restore_state(run: Run, setup: TrainingSetup) -> Progress:
    """Load the last checkpoint, or the one before it; without any, return the initial progress.

    Raises:
        UserError: the files are damaged, do not match the run, or have another number format.
    """
    path = run.process.on_rank0(lambda: _newest_state(run))
    if path is None:
        return Progress(precision=setup.precision.name)
    recorded = checked_description(path, _LAST, run.identity).get("record")
    record = checked_in(path, recorded, _State, exact=True)
    progress = checked_in(path, record.progress, Progress, exact=True)
    if fault := progress.fault():
        raise damaged(path, fault)
    if record.scaler.keys() != setup.scaler.state_dict().keys():
        raise damaged(path, f"state of the loss scaler: {', '.join(record.scaler) or 'none'}")
    if progress.precision != setup.precision.name:
        raise UserError(
            f"{run.folder}: trained in {progress.precision}, but --precision auto is {setup.precision.name} "
            f"on this device; resume on a device that supports {progress.precision}, or train anew with "
            f"--precision {setup.precision.name} and another --run_folder"
        )
    last = read_checkpoint(path)
    load_into(setup.model, _with_prefix(last.tensors, _MODEL), last.path, trained_state(setup.model))
    state = setup.optimizer.state_dict()
    indices = {name: index for index, name in enumerate(_parameter_names(setup.optimizer))}
    shapes = {name: tensor.shape for name, tensor in trained_state(setup.model).items()}
    for name, tensor in _with_prefix(last.tensors, _OPTIMIZER).items():
        key, _, parameter = name.partition("/")  # such as exp_avg/head.weight
        if parameter not in indices or tensor.shape not in (shapes.get(parameter), ()):
            raise damaged(path, f"unexpected state of the optimizer: {name}")
        state["state"].setdefault(indices[parameter], {})[key] = tensor
    for index, values in state["state"].items():
        if values.keys() != _OF_ADAM:
            raise damaged(
                path, f"incomplete state of the optimizer: {_parameter_names(setup.optimizer)[index]}"
            )
    setup.optimizer.load_state_dict(state)
    setup.scaler.load_state_dict(record.scaler)
    run.log(f"resuming at epoch {progress.epoch}, step {progress.step}")
    return progress


def _newest_state(run: Run) -> Path | None:
    """The checkpoint to resume from. A damaged ``last`` is removed if the one before it is whole.

    Raises:
        UserError: there are checkpoints, but none is whole and of this run.
    """
    paths = [path for path in (run.last_path, run.previous_path) if path.exists()]
    for path in paths:
        try:
            checked_description(path, _LAST, run.identity)
        except UserError as error:
            if path == paths[-1]:
                raise
            damage = error
            continue
        if path == run.previous_path:
            trouble = damage if len(paths) == 2 else f"{run.last_path}: missing"
            run.log(f"warning: {trouble}\nresuming from the checkpoint before it, {path}")
            remove_checkpoint(run.last_path)
        return path
    return None


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters, in the order of their indices in the optimizer's state."""
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
