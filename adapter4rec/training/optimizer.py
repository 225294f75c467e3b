"""The optimizer and the learning rates of its parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
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


def make_optimizer(groups: list[ParameterGroup], weight_decay: float = 0.0) -> torch.optim.AdamW:
    """Adam as in the paper: betas (0.9, 0.999), eps 1e-8; with decoupled weight decay if it is not 0.

    Biases and layer norms, the parameters with one axis, have no weight decay.
    """
    split = [
        {
            "params": [(name, p) for name, p in group.parameters.items() if (p.ndim > 1) == decays],
            "lr": group.learning_rate,
            "initial_lr": group.learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for group in groups
        for decays in (True, False)
    ]
    return torch.optim.AdamW([one for one in split if one["params"]], fused=True)
