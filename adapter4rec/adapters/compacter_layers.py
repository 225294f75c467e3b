"""The modules of Compacter: the shared rule, hypercomplex linear layers and their bottleneck."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck_layers import activation
from adapter4rec.models.dropout import Dropout
from adapter4rec.models.parts import SHARED
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from adapter4rec.adapters.compacter import CompacterConfig


class Rule(Adapter):
    """R ``[n, n, n]``, shared by all layers of both encoders, initialised from N(0, 0.0001²)."""

    group = SHARED

    def __init__(self, config: CompacterConfig) -> None:
        super().__init__()
        size = config.divisions
        self.rule = nn.Parameter(torch.empty(size, size, size).normal_(std=1e-4))


class HypercomplexLinear(nn.Module):
    """x H + b with H = Σᵢ Rᵢ ⊗ (Lᵢ Uᵢ), in x out (parameterised hypercomplex multiplication of low rank).

    Initialised: factors Xavier-uniform with gain √2, each division separately; b with zero.

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
        self.activation = activation(config.adapter_activation)
        self.dropout = Dropout(config.adapter_dropout)
        self._rule = [rule]  # in a list, so that it is registered only once, with the model

    def forward(self, y: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., width]``."""
        (rule,) = self._rule
        dropped: Tensor = self.dropout(self.up(self.activation(self.down(y, rule.rule)), rule.rule))
        return dropped
