"""Which parameters are trained, in which group and with which learning rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapter4rec.models.sharding import is_sharded, whole_state
from adapter4rec.models.transrec import ADAPTER_PARTS, PARTS, TransRec, part_of


def train_only(model: TransRec, parts: Collection[str]) -> None:
    """Let the parameters of ``parts`` (see ``part_of``) be trained, but for fixed ones; freeze all others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in parts and name not in model.fixed)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """All that tells a trained model from the one it started from, by name.

    These are the trained parameters, and what adapters drew at random and keep frozen, their buffers.
    """
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    frozen = {name: tensor for name, tensor in model.named_buffers() if name.startswith("adapters.")}
    return {name: tensor.detach() for name, tensor in (trained | frozen).items()}


def whole_trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The same with undivided tensors; of a model that is divided over processes on the first one alone.

    All processes must call this.
    """
    trained = trained_state(model)
    if not is_sharded(model):
        return trained
    return {name: tensor for name, tensor in whole_state(model).items() if name in trained}


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, and how many of them are trained."""

    trained: int
    total: int

    @property
    def share(self) -> float:
        """Trained parameters, in per cent of all."""
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
        """A line for the log."""
        count = sum(parameter.numel() for parameter in self.parameters.values())
        return f"{self.part:<17}{count:>12,} parameters, learning rate {self.learning_rate:g}"


def parameter_groups(model: TransRec, learning_rates: Mapping[str, float]) -> list[ParameterGroup]:
    """Group the trained parameters by part, in the order of the parts and of the model."""
    groups = []
    for part in (*PARTS, *ADAPTER_PARTS):
        members = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and part_of(name) == part
        }
        if members:
            groups.append(ParameterGroup(part, learning_rates[part], members))
    return groups


def make_optimizer(groups: list[ParameterGroup]) -> torch.optim.Adam:
    """Adam with the paper's settings: betas (0.9, 0.999), eps 1e-8, no weight decay, constant rates."""
    return torch.optim.Adam(
        [{"params": list(group.parameters.items()), "lr": group.learning_rate} for group in groups],
        fused=True,
    )
