"""The optimizer and the learning rates of its parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from adapter4rec.models.transrec import TransRec


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters, by name, with a common learning rate."""

    part: str
    learning_rate: float
    parameters: dict[str, nn.Parameter]

    def describe(self) -> str:
        """One line for the log."""
        count = sum(parameter.numel() for parameter in self.parameters.values())
        return f"{self.part:<17}{count:>12,} parameters, learning rate {self.learning_rate:g}"


def parameter_groups(model: TransRec, learning_rates: Mapping[str, float]) -> list[ParameterGroup]:
    """The trained parameters by group, in the order of ``TransRec.parameter_groups``.

    Args:
        model: trained parameters are those that require gradients.
        learning_rates: by name of the group.
    """
    groups = []
    for part, parameters in model.parameter_groups().items():
        trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        if trained:
            groups.append(ParameterGroup(part, learning_rates[part], trained))
    return groups


def make_optimizer(groups: list[ParameterGroup]) -> torch.optim.Adam:
    """Adam as in the paper: betas (0.9, 0.999), eps 1e-8, no weight decay, constant learning rates."""
    return torch.optim.Adam(
        [{"params": list(group.parameters.items()), "lr": group.learning_rate} for group in groups],
        fused=True,
    )
