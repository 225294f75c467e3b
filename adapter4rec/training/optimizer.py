"""Which parameters are trained, and with which learning rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapter4rec.models.sharding import is_sharded, whole_state
from adapter4rec.models.transrec import TransRec


def train_only(model: TransRec, parts: Collection[str]) -> None:
    """Train the parameter groups ``parts`` (see models/parts.py) and freeze all others."""
    for part, parameters in model.parameter_groups().items():
        for parameter in parameters.values():
            parameter.requires_grad_(part in parts)


def trained_state(model: TransRec) -> dict[str, Tensor]:
    """Everything in which a trained model differs from the one it started from, by name.

    These are the trained parameters, and the buffers of adapters: frozen weights drawn at random.
    """
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    frozen = dict(model.adapters.named_buffers(prefix="adapters"))
    return {name: tensor.detach() for name, tensor in (trained | frozen).items()}


def whole_trained_state(model: TransRec) -> dict[str, Tensor]:
    """The same with unsharded tensors; of a sharded model on rank 0 only, and empty on other ranks.

    All processes must call this.
    """
    trained = trained_state(model)
    if not is_sharded(model):
        return trained
    return {name: tensor for name, tensor in whole_state(model).items() if name in trained}


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters of a model, and of its trained parameters."""

    trained: int
    total: int

    @property
    def share(self) -> float:
        """Trained parameters in percent of all."""
        return 100 * self.trained / max(1, self.total)


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the distinct parameters of a model."""
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return ParameterCounts(trained, sum(parameter.numel() for parameter in parameters))


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters, by name, that share a learning rate."""

    part: str
    learning_rate: float
    parameters: dict[str, nn.Parameter]

    def describe(self) -> str:
        """One line for the log."""
        count = sum(parameter.numel() for parameter in self.parameters.values())
        return f"{self.part:<17}{count:>12,} parameters, learning rate {self.learning_rate:g}"


def parameter_groups(model: TransRec, learning_rates: Mapping[str, float]) -> list[ParameterGroup]:
    """The trained parameters in their groups, in the order of ``TransRec.parameter_groups``.

    Args:
        model: its trained parameters require gradients.
        learning_rates: by part.
    """
    groups = []
    for part, parameters in model.parameter_groups().items():
        trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        if trained:
            groups.append(ParameterGroup(part, learning_rates[part], trained))
    return groups


def make_optimizer(groups: list[ParameterGroup]) -> torch.optim.Adam:
    """Adam with the paper's settings: betas (0.9, 0.999), eps 1e-8, no weight decay, constant rates."""
    return torch.optim.Adam(
        [{"params": list(group.parameters.items()), "lr": group.learning_rate} for group in groups],
        fused=True,
    )
