"""The bottleneck that most adapters are made of, and one module for each chosen sublayer."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import ClassVar

from torch import Tensor, nn
from transformers.activations import ACT2FN

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.dropout import Dropout


def activation(name: str) -> nn.Module:
    """σ by its name, see ``config.ACTIVATIONS``."""
    function: nn.Module = ACT2FN[{"gelu_tanh": "gelu_pytorch_tanh", "none": "linear"}.get(name, name)]
    return function


class Bottleneck(nn.Module):
    """a(x) = Dropout(W_up σ(W_down x + b_down) + b_up), without a residual (Houlsby et al., ICML 2019).

    Args:
        width: of x, h or d.
        bottleneck: r.
        config: has σ and the probability of dropout.
    """

    near_zero: ClassVar[bool] = True
    """Initialise weights from N(0, 0.01²) and biases with zero; else both as torch does."""

    def __init__(self, width: int, bottleneck: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = activation(config.adapter_activation)
        self.dropout = Dropout(config.adapter_dropout)
        if self.near_zero:
            for layer in (self.down, self.up):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., width]``."""
        dropped: Tensor = self.dropout(self.up(self.activation(self.down(x))))
        return dropped


class AfterNorm(Bottleneck):
    """A bottleneck with its own layer norm, see ``pfeiffer_after_layernorm.py``; initialised as by torch."""

    near_zero = False

    def __init__(self, width: int, bottleneck: int, config: BottleneckConfig) -> None:
        super().__init__(width, bottleneck, config)
        self.norm = nn.LayerNorm(width, eps=1e-6)


class SublayerAdapter(Adapter):
    """One module m at each chosen sublayer f, by default at its output: y = f(x) becomes ``change(m, y, x)``.

    ``layers.N.attention`` and ``layers.N.feed_forward`` are the modules of layer N, counted from 0.

    Args:
        config: chooses layers and sublayers, and attaches the modules.
        sites: the sites of the encoder.
        shared: further arguments of the class of the modules.
    """

    def __init__(self, config: BottleneckConfig, sites: Sites, *shared: nn.Module) -> None:
        super().__init__()
        build, bottleneck = resolve_name(config.module), config.size_of(sites, "bottleneck")
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            modules = {kind: build(sites.width, bottleneck, config, *shared) for kind in config.sublayers}
            self.layers[number] = nn.ModuleDict(modules)
            for kind, module in modules.items():
                self.attach(config.attach(layer.sublayers[kind], module))
