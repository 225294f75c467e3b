"""Compacter (Karimi Mahabadi et al., NeurIPS 2021): Houlsby's places, with layers of Kronecker products.

"Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", equations 3 to 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapter4rec.adapters.bottleneck import ACTIVATIONS, BottleneckConfig, SublayerAdapter
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.dropout import Dropout
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class CompacterConfig(BottleneckConfig):
    """Bottlenecks whose weights are sums of Kronecker products with one rule for the whole model."""

    adapter_activation: str = option("gelu_tanh", "activation in the bottleneck", choices=tuple(ACTIVATIONS))
    divisions: int = option(4, "n, how many Kronecker products make a weight", least=1)
    factor_rank: int = option(1, "rank of their right factors", least=1)
    lr_rule: float = option(1e-4, "learning rate of the shared rule", above=0, most=10)

    def learning_rates(self) -> dict[str, float]:
        """The shared rule has a rate of its own."""
        return {"shared": self.lr_rule}


class Rule(nn.Module):
    """R ``[n, n, n]``, shared by all layers of both encoders, N(0, 0.0001²) at its start."""

    def __init__(self, config: CompacterConfig) -> None:
        super().__init__()
        size = config.divisions
        self.rule = nn.Parameter(torch.empty(size, size, size).normal_(std=1e-4))


class HypercomplexLinear(nn.Module):
    """x H + b with H = Σᵢ Rᵢ ⊗ (Lᵢ Uᵢ), in x out (parameterised hypercomplex multiplication of low rank).

    Factors begin Xavier-uniform with gain √2, each division drawn for itself; b begins as zero.

    Raises:
        UserError: n does not divide a width.
    """

    def __init__(self, inputs: int, outputs: int, config: CompacterConfig) -> None:
        super().__init__()
        n, rank = config.divisions, config.factor_rank
        for width in (inputs, outputs):
            if width % n:
                raise UserError(f"--divisions {n}: must divide each width, and one is {width}")
        self.left = nn.Parameter(_drawn(n, inputs // n, rank))
        self.right = nn.Parameter(_drawn(n, rank, outputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, rule: Tensor) -> Tensor:
        """``[..., in]`` → ``[..., out]``."""
        products = torch.einsum("nab,nir,nro->aibo", rule, self.left, self.right)
        return x @ products.flatten(2, 3).flatten(0, 1) + self.bias


def _drawn(n: int, rows: int, columns: int) -> Tensor:
    return torch.stack([nn.init.xavier_uniform_(torch.empty(rows, columns), math.sqrt(2)) for _ in range(n)])


class HypercomplexBottleneck(nn.Module):
    """a(y) = Dropout(up(σ(down(y)))), σ by default GELU in its tanh form, without a residual."""

    def __init__(self, width: int, bottleneck: int, config: CompacterConfig, rule: Rule) -> None:
        super().__init__()
        self.down = HypercomplexLinear(width, bottleneck, config)
        self.up = HypercomplexLinear(bottleneck, width, config)
        self.activation = ACTIVATIONS[config.adapter_activation]
        self.dropout = Dropout(config.adapter_dropout)
        self._rule = [rule]  # in a list, so that it is registered once, with the model

    def forward(self, y: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., width]``."""
        (rule,) = self._rule
        return self.dropout(self.up(self.activation(self.down(y, rule.rule)), rule.rule))


class Compacter(SublayerAdapter):
    """In every sublayer f, y = f(x) becomes A(y) = y + a(y), before the residual is added."""

    def __init__(self, config: CompacterConfig, sites: Sites, rule: Rule) -> None:
        self._shared_rule = [rule]
        super().__init__(config, sites)

    def build(self, config: CompacterConfig, sites: Sites) -> nn.Module:
        """The module of one sublayer."""
        return HypercomplexBottleneck(sites.width, config.bottleneck_of(sites), config, *self._shared_rule)

    @staticmethod
    def change(module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """A(y) = y + a(y)."""
        del x
        return y + module(y)
