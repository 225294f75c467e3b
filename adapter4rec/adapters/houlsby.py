"""Houlsby adapters (Houlsby et al., ICML 2019, "Parameter-Efficient Transfer Learning for NLP")."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import SUBLAYERS, Sites
from adapter4rec.settings import option


@dataclass(frozen=True)
class HoulsbyConfig(AdapterConfig):
    """Serial adapters after attention and after feed-forward, in every layer."""

    item_bottleneck: int = option(64, "inner width of the item encoder's adapters", least=1)
    user_bottleneck: int = option(16, "inner width of the user encoder's adapters", least=1)


class Bottleneck(nn.Module):
    """A(y) = y + W_up ReLU(W_down y + b_down) + b_up, near the identity at its start.

    Weights begin as N(0, 0.01²), biases as zero.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, y: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., width]``."""
        return y + self.up(F.relu(self.down(y)))


class Houlsby(Adapter):
    """In every sublayer of an encoder, y = f(x) becomes A(y), before the residual is added."""

    def __init__(self, config: HoulsbyConfig, sites: Sites) -> None:
        super().__init__()
        bottleneck = config.item_bottleneck if sites.role == "item" else config.user_bottleneck
        self.layers = nn.ModuleList(
            nn.ModuleDict({kind: Bottleneck(sites.width, bottleneck) for kind in SUBLAYERS})
            for _ in sites.layers
        )
        for modules, layer in zip(self.layers, sites.layers, strict=True):
            for kind, module in modules.items():
                self.attach(layer.sublayers[kind].on_output(_serial(module)))


def _serial(module: Bottleneck):  # noqa: ANN202
    return lambda y, x: module(y)
