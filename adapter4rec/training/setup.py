"""Setup of training: optimizer, number format, training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from adapter4rec.data.batches import sample_users
from adapter4rec.data.domain import Domain
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import compile_layers
from adapter4rec.training.optimizer import make_optimizer
from adapter4rec.training.settings import TrainingSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import Precision, choose_precision
from adapter4rec.utils.process_group import Process

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec


@dataclass(frozen=True)
class TrainingSetup:
    """A model with the objects that train it.

    Attributes:
        model: the model, on its device.
        parameters: the trained parameters.
        optimizer: over these parameters.
        scaler: scales fp16 gradients; disabled for other number formats.
        precision: the number format.
        clip_norm: maximum norm of the gradient; None for no clipping.
        process: this process.
    """

    model: TransRec
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    clip_norm: float | None
    process: Process

    def describe(self) -> list[str]:
        """Lines for the log: parameter groups, number format, number of processes."""
        lines = []
        for group in self.optimizer.param_groups:
            count = sum(parameter.numel() for parameter in group["params"])
            decay = f", weight decay {group['weight_decay']:g}" if group["weight_decay"] else ""
            rate = f"learning rate {group['initial_lr']:g}{decay}"
            lines.append(f"  {group['part']:<17}{count:>12,} parameters, {rate}")
        encoder = self.model.item_encoder
        if isinstance(encoder, ContentItemEncoder) and (line := encoder.describe_input()):
            lines.append(line)
        processes = f"{self.process.world_size} process{'es' * (self.process.world_size > 1)}"
        return [*lines, f"precision {self.precision.name}, {processes} on {self.process.device}"]


def prepare(model: TransRec, domain: Domain, settings: TrainingSettings, process: Process) -> TrainingSetup:
    """Prepare a model for training.

    Args:
        model: on its device; trained parameters are those that require gradients.
        domain: users and items; layers with cached outputs are not compiled.
        settings: learning rates, number format, activation recomputation, compilation.
        process: this process.

    Raises:
        UserError: the number format is not supported on this device, or the loss not by the method.
    """
    precision = choose_precision(settings.precision, process.device)
    choose_precision(settings.evaluation_precision, process.device, "evaluation_precision")  # fail now
    if model.loss.sampling.catalogue and settings.method not in ("head", "id"):
        raise UserError(
            f"--loss {settings.loss}: encodes all {domain.interactions.n_items:,} items in every step, which "
            "is supported with --method head and id only; use --loss mixed"
        )
    encoder = model.item_encoder
    if isinstance(encoder, ContentItemEncoder):
        encoder.recompute = settings.recompute
        if settings.compile:
            compile_layers(encoder.backbone, after=getattr(domain.store, "layers", ()))
    groups = model.parameter_groups().values()
    parameters = [one for group in groups for one in group.values() if one.requires_grad]
    optimizer = make_optimizer(model, settings.learning_rates(), settings.weight_decay)
    scaler = precision.scaler()
    return TrainingSetup(model, parameters, optimizer, scaler, precision, settings.clip_norm, process)


def trained_users(domain: Domain, settings: TrainingSettings) -> np.ndarray | None:
    """Indices of the users to train on; None for all users."""
    if settings.user_share == 1:
        return None
    users = domain.interactions.trainable_users()
    sampled: np.ndarray = users[sample_users(len(users), settings.user_share, settings.seed)]
    return sampled
