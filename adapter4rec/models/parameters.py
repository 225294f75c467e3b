"""Which parameters of a model are trained, their values and their number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from adapter4rec.models.sharding import is_sharded, whole_state
from adapter4rec.models.transrec import TransRec, part_of


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
