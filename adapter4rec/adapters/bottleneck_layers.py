"""The bottlenecks that most adapters are made of, and one module for each chosen sublayer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.dropout import Dropout
from adapter4rec.models.parts import SHARED
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from adapter4rec.adapters.compacter import CompacterConfig

LinearLayer: TypeAlias = Callable[[int, int], nn.Module]
"""Builds a linear layer from the widths of its input and output."""
_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh", "none": "linear"}
"""Names in transformers, where they differ from those of ``config.ACTIVATIONS``."""


class Bottleneck(nn.Module):
    """a(x) = Dropout(W_up σ(W_down x + b_down) + b_up), without a residual (Houlsby et al., ICML 2019).

    Args:
        width: of x, h or d.
        bottleneck: r.
        config: has σ and the probability of dropout.
        linear: class of W_down and W_up.
    """

    near_zero: ClassVar[bool] = True
    """Initialise weights from N(0, 0.01²) and biases with zero; else as ``linear`` does."""

    def __init__(
        self, width: int, bottleneck: int, config: HoulsbyConfig, linear: LinearLayer = nn.Linear
    ) -> None:
        from transformers.activations import ACT2FN  # takes seconds

        super().__init__()
        self.down, self.up = linear(width, bottleneck), linear(bottleneck, width)
        self.activation = ACT2FN[_ACTIVATIONS.get(config.adapter_activation, config.adapter_activation)]
        self.dropout = Dropout(config.adapter_dropout)
        if self.near_zero:
            for layer in (self.down, self.up):
                nn.init.normal_(layer.get_parameter("weight"), std=0.01)
                nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., width]``."""
        dropped: Tensor = self.dropout(self.up(self.activation(self.down(x))))
        return dropped


class AfterNorm(Bottleneck):
    """A bottleneck with its own layer norm, see ``pfeiffer.py``; initialised as by torch."""

    near_zero = False

    def __init__(self, width: int, bottleneck: int, config: HoulsbyConfig) -> None:
        super().__init__(width, bottleneck, config)
        self.norm = nn.LayerNorm(width, eps=1e-6)


class Rule(Adapter):
    """R ``[n, n, n]``, shared by all layers of both encoders, initialised from N(0, 0.0001²)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.rule = nn.Parameter(torch.empty(n, n, n).normal_(std=1e-4))
        self.groups["rule"] = SHARED


class HypercomplexLinear(nn.Module):
    """x H + b with H = Σᵢ Rᵢ ⊗ (Lᵢ Uᵢ), in x out (parameterised hypercomplex multiplication of low rank).

    Initialised: factors Xavier-uniform with gain √2, each division separately; b with zero.

    Raises:
        UserError: n does not divide a width.
    """

    def __init__(self, rule: Rule, rank: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self._rule = [rule]  # in a list, so that it is registered only once, with the model
        n = len(rule.rule)
        for width in (inputs, outputs):
            if width % n:
                raise UserError(f"--divisions {n}: must divide each width, and one is {width}")
        self.left = nn.Parameter(_drawn(n, inputs // n, rank))
        self.right = nn.Parameter(_drawn(n, rank, outputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` → ``[..., out]``."""
        products = torch.einsum("nab,nir,nro->aibo", self._rule[0].rule, self.left, self.right)
        return x @ products.flatten(2, 3).flatten(0, 1) + self.bias


def _drawn(n: int, rows: int, columns: int) -> Tensor:
    return torch.stack([nn.init.xavier_uniform_(torch.empty(rows, columns), math.sqrt(2)) for _ in range(n)])


class HypercomplexBottleneck(Bottleneck):
    """A bottleneck of hypercomplex layers, see ``compacter.py``."""

    near_zero = False

    def __init__(self, width: int, bottleneck: int, config: CompacterConfig, rule: Rule) -> None:
        super().__init__(width, bottleneck, config, partial(HypercomplexLinear, rule, config.factor_rank))


class SublayerAdapter(Adapter):
    """One module m at each chosen sublayer f, by default at its output: y = f(x) becomes ``change(m, y, x)``.

    ``layers.N.attention`` and ``layers.N.feed_forward`` are the modules of layer N, counted from 0.

    Args:
        config: chooses layers and sublayers, and attaches the modules.
        sites: the sites of the encoder.
        shared: further arguments of the class of the modules.
    """

    def __init__(self, config: HoulsbyConfig, sites: Sites, *shared: nn.Module) -> None:
        super().__init__()
        build, bottleneck = resolve_name(config.module), config.bottleneck_of(sites)
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            chosen = {kind: layer.sublayer(kind) for kind in config.sublayers}
            modules = {kind: build(sites.width, bottleneck, config, *shared) for kind in chosen}
            self.layers[number] = nn.ModuleDict(modules)
            for kind, module in modules.items():
                self.attach(config.attach(chosen[kind], module))
