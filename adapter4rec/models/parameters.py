"""The trained parameters of a model: selection, values and counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec


def train_only(model: TransRec, parts: Collection[str]) -> None:
    """Unfreeze the parameter groups ``parts`` (see ``parts.py``) and freeze all others."""
    for part, parameters in model.parameter_groups().items():
        for parameter in parameters.values():
            parameter.requires_grad_(part in parts)


def trained_state(model: TransRec) -> dict[str, Tensor]:
    """The trained parameters and the buffers of adapters, user encoder and loss, by name.

    Buffers of adapters are randomly initialised frozen weights. Parameters that PEFT inserts into the
    backbone have the names that they have in the adapter.
    """
    names = {id(one): name for name, one in model.adapters.named_parameters(prefix="adapters")}
    trained = {
        names.get(id(tensor), name): tensor
        for name, tensor in model.named_parameters()
        if tensor.requires_grad
    }
    frozen = dict(model.adapters.named_buffers(prefix="adapters"))
    for part, module in (("user_encoder", model.user_encoder), ("loss", model.loss)):
        kept = module.state_dict(prefix=f"{part}.", keep_vars=True)
        frozen |= {name: one for name, one in kept.items() if not isinstance(one, nn.Parameter)}
    return {name: tensor.detach() for name, tensor in (trained | frozen).items()}


@dataclass(frozen=True)
class ParameterCounts:
    """Number of trained parameters, and of all parameters, of a model."""

    trained: int
    total: int

    @property
    def share(self) -> float:
        """Trained parameters as a percentage of all parameters."""
        return 100 * self.trained / max(1, self.total)


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the distinct parameters of a model."""
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return ParameterCounts(trained, sum(parameter.numel() for parameter in parameters))
