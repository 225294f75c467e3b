"""The bottleneck that most adapters are made of, and one module for each chosen sublayer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import SUBLAYERS, Sites
from adapter4rec.models.dropout import Dropout
from adapter4rec.utils.settings import option

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": F.tanh,
    "none": lambda x: x,
}


@dataclass(frozen=True)
class BottleneckConfig(AdapterConfig):
    """What all families with a bottleneck offer."""

    sublayers: tuple[str, ...] = option(
        SUBLAYERS, "sublayers that are adapted: attention,feed_forward", choices=SUBLAYERS
    )
    item_bottleneck: int = option(64, "inner width of the item encoder's adapters", least=1)
    user_bottleneck: int = option(16, "inner width of the user encoder's adapters", least=1)
    adapter_activation: str = option("relu", "activation in the bottleneck", choices=tuple(ACTIVATIONS))
    adapter_dropout: float = option(0.0, "dropout behind the bottleneck", least=0, most=0.99)

    def bottleneck_of(self, sites: Sites) -> int:
        """r, the inner width of an encoder's adapters."""
        return self.item_bottleneck if sites.role == "item" else self.user_bottleneck


class Bottleneck(nn.Module):
    """a(x) = Dropout(W_up σ(W_down x + b_down) + b_up), without a residual (Houlsby et al., ICML 2019).

    Args:
        width: of x, h or d.
        bottleneck: r.
        activation: σ, one of ``ACTIVATIONS``.
        dropout: its probability.
        near_zero: weights begin as N(0, 0.01²) and biases as zero, so that a is nearly zero; else both begin
            as torch initialises linear layers.
    """

    def __init__(
        self, width: int, bottleneck: int, activation: str, dropout: float, *, near_zero: bool = True
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)
        if near_zero:
            for layer in (self.down, self.up):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., width]``."""
        return self.dropout(self.up(self.activation(self.down(x))))


class SublayerAdapter(Adapter):
    """One module at the output of each chosen sublayer f of an encoder: y = f(x) becomes ``change(m, y, x)``.

    ``layers.N.attention`` and ``layers.N.feed_forward`` are the modules of layer N, counted from 0.
    """

    def __init__(self, config: BottleneckConfig, sites: Sites) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites):
            modules = {kind: self.build(config, sites) for kind in config.sublayers}
            self.layers[number] = nn.ModuleDict(modules)
            for kind, module in modules.items():
                self.attach(layer.sublayers[kind].on_output(self._changing(module)))

    def _changing(self, module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda y, x: self.change(module, y, x)

    def build(self, config: BottleneckConfig, sites: Sites) -> nn.Module:
        """The module of one sublayer."""
        return Bottleneck(
            sites.width, config.bottleneck_of(sites), config.adapter_activation, config.adapter_dropout
        )

    @staticmethod
    @abstractmethod
    def change(module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """What becomes of y = f(x), ``[batch, places, width]``; x is the residual stream."""
