"""Setup of training: data-parallel model, optimizer, number format, training set."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from adapter4rec.data.batches import TrainingSet, sample_users
from adapter4rec.data.domain import Domain
from adapter4rec.models.layers import compile_layers
from adapter4rec.models.transrec import TransRec
from adapter4rec.training.optimizer import ParameterGroup, make_optimizer, parameter_groups
from adapter4rec.training.settings import TrainingSettings
from adapter4rec.utils.precision import Precision, choose_precision
from adapter4rec.utils.process_group import Process

_DROPOUT = 2  # random stream; others are in data/batches.py
_BUFFERS_ARE_SENT = "forward_sync_buffers"
if _BUFFERS_ARE_SENT not in inspect.signature(DistributedDataParallel).parameters:
    _BUFFERS_ARE_SENT = "broadcast_buffers"  # its name before torch 2.14


@dataclass(frozen=True)
class TrainingSetup:
    """A model with the objects that train it.

    Attributes:
        model: the model, on its device.
        parallel: the module to call in a training step: the model, or DistributedDataParallel around it.
        groups: the trained parameters with their learning rates.
        optimizer: over these groups.
        scaler: scales fp16 gradients; disabled for other number formats.
        precision: the number format.
        process: this process.
    """

    model: TransRec
    parallel: nn.Module
    groups: list[ParameterGroup]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    process: Process

    def describe(self) -> list[str]:
        """Lines for the log: parameter groups, number format, number of processes."""
        processes = f"{self.process.world_size} process{'es' * (self.process.world_size > 1)}"
        groups = [f"  {group.describe()}" for group in self.groups]
        return [*groups, f"precision {self.precision.name}, {processes} on {self.process.device}"]

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of a backward pass; gradients are synchronised in the last accumulation step only."""
        if last or self.process.world_size == 1:
            return nullcontext()
        return self.parallel.no_sync()


def prepare(model: TransRec, domain: Domain, settings: TrainingSettings, process: Process) -> TrainingSetup:
    """Prepare a model for training.

    Args:
        model: on its device; trained parameters are those that require gradients.
        domain: users and items; layers with cached outputs are not compiled.
        settings: learning rates, number format, activation recomputation, compilation.
        process: this process.

    Raises:
        UserError: the number format is not supported on this device.
    """
    precision = choose_precision(settings.precision, process.device)
    if settings.compile and settings.uses_content:
        compile_layers(model.item_encoder.backbone, after=getattr(domain.store, "layers", ()))
    model.item_encoder.recompute = settings.recompute
    parallel: nn.Module = model
    if process.world_size > 1:
        parallel = DistributedDataParallel(model, **{_BUFFERS_ARE_SENT: False}, gradient_as_bucket_view=True)
    groups = parameter_groups(model, settings.learning_rates())
    optimizer = make_optimizer(groups)
    return TrainingSetup(model, parallel, groups, optimizer, precision.scaler(), precision, process)


def training_set(
    model: TransRec, domain: Domain, settings: TrainingSettings, process: Process
) -> TrainingSet:
    """The training set of a domain: this process's part of each batch.

    Raises:
        UserError: a user has clicked every item, so that no negative can be sampled.
    """
    return TrainingSet(
        domain.interactions,
        domain.store,
        batch_size=settings.batch_size,
        seed=settings.seed,
        predicted=model.loss.predicted,
        users=trained_users(domain, settings),
        process=process,
        accumulation_steps=settings.accumulation_steps,
    )


def trained_users(domain: Domain, settings: TrainingSettings) -> np.ndarray | None:
    """Indices of the users to train on; None for all users."""
    if settings.user_share == 1:
        return None
    return sample_users(domain.interactions.n_users, settings.user_share, settings.seed)


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed dropout by (seed, epoch, step, rank), so that a resumed run repeats the same random numbers."""
    words = np.random.SeedSequence([seed, _DROPOUT, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]) & (2**63 - 1))
