"""The state of training: how far it has come, and all that is needed to go on as if never stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from adapter4rec.models.sharding import put_optimizer_state, whole_optimizer_state
from adapter4rec.models.weights import load_into
from adapter4rec.runs.run import Record, Run
from adapter4rec.training.optimizer import trained_state, whole_trained_state
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint

_MODEL, _OPTIMIZER = "model/", "optimizer/"
_LAST = "state of a run"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: the epoch to go on in, from 1.
        step: the step of it to go on with, from 0.
        loss_sum: summed loss of the epoch's steps so far.
        seconds: training time of the epoch so far.
        waited: how much of it went by without a batch to train on.
        history: a record each finished epoch.
        best: the record of the best epoch, the first where several are equal.
        precision: the number format of training, once it has begun.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    history: list[Record] = field(default_factory=list)
    best: Record | None = None
    precision: str = ""

    def finish_epoch(self, record: Record) -> bool:
        """Take in an epoch's record and move on; whether it is the best so far."""
        self.history.append(record)
        is_best = self.best is None or record["HR@10"] > self.best["HR@10"]
        if is_best:
            self.best = record
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum = self.seconds = self.waited = 0.0
        return is_best


def save_state(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
) -> None:
    """Write ``last.safetensors``, whole, then the metrics that people read; the first process writes.

    Chance needs no saving: batches and dropout follow from (seed, epoch, step).
    """
    trained, kept = whole_trained_state(model), whole_optimizer_state(model, optimizer)
    if not run.process.is_first:
        return
    tensors = {_MODEL + name: tensor for name, tensor in trained.items()}
    for name, values in kept.items():
        tensors |= {f"{_OPTIMIZER}{key}/{name}": value for key, value in values.items()}
    description = run.described(_LAST, {"progress": asdict(progress), "scaler": scaler.state_dict()})
    write_checkpoint(run.last_path, tensors, description)
    run.write_metrics(progress.history)


def restore_state(
    run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Progress:
    """Take up the saved state where there is one, else begin anew.

    Raises:
        UserError: the file is damaged or does not fit.
    """
    if not run.last_path.exists():
        return Progress()
    record = run.own_description(run.last_path, _LAST)["record"]
    last = read_checkpoint(run.last_path)
    load_into(model, _below(last.tensors, _MODEL), last.path, trained_state(model))
    kept = {key: _below(last.tensors, f"{_OPTIMIZER}{key}/") for key in ("step", "exp_avg", "exp_avg_sq")}
    by_name = {name: {key: tensors[name] for key, tensors in kept.items()} for name in kept["step"]}
    put_optimizer_state(model, optimizer, by_name)
    scaler.load_state_dict(record["scaler"])
    return Progress(**record["progress"])


def last_progress(run: Run) -> Progress:
    """How far a run has come by its last saved state, as the first process reads it."""

    def read() -> Progress:
        if not run.last_path.exists():
            return Progress()
        return Progress(**run.own_description(run.last_path, _LAST)["record"]["progress"])

    return run.process.first_decides(read)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
