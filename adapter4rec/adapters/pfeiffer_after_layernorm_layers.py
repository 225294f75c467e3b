"""The modules of Pfeiffer adapters after the layer norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck_layers import Bottleneck
from adapter4rec.adapters.config import FEED_FORWARD
from adapter4rec.adapters.sites import Sites
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from adapter4rec.adapters.pfeiffer_after_layernorm import PfeifferAfterLayerNormConfig


class AfterNorm(Bottleneck):
    """LN_own(a(LN(s)) + s), where s = x + f(x) is the input of the layer's own norm."""

    def __init__(self, width: int, config: PfeifferAfterLayerNormConfig, bottleneck: int) -> None:
        super().__init__(
            width, bottleneck, config.adapter_activation, config.adapter_dropout, near_zero=False
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def change(self, normed: Tensor, total: Tensor) -> Tensor:
        """LN(s) and s, both ``[..., width]`` → ``[..., width]``."""
        return self.norm(self(normed) + total)


class PfeifferAfterLayerNorm(Adapter):
    """In every chosen layer LN(s) becomes LN_own(a(LN(s)) + s), s = FeedForward(x) + x.

    Raises:
        UserError: the encoder is pre-norm, so no layer norm follows its sublayers.
    """

    def __init__(self, config: PfeifferAfterLayerNormConfig, sites: Sites) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            sublayer = layer.sublayers[FEED_FORWARD]
            if sublayer.pre_norm:
                raise UserError(
                    f"pfeiffer_after_layernorm: the {sites.role} encoder is pre-norm: no layer norm follows "
                    "its sublayers; use pfeiffer instead"
                )
            module = AfterNorm(sites.width, config, config.bottleneck_of(sites))
            self.layers[number] = nn.ModuleDict({FEED_FORWARD: module})
            self.attach(sublayer.on_normed_sum(module.change))
