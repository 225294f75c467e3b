"""Pfeiffer adapters behind the layer norm (Pfeiffer et al., EACL 2021, "AdapterFusion")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck import Bottleneck, BottleneckConfig
from adapter4rec.adapters.sites import FEED_FORWARD, SUBLAYERS, Sites
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class PfeifferAfterLayerNormConfig(BottleneckConfig):
    """One adapter a layer, behind the layer norm that follows feed-forward, with a layer norm of its own."""

    sublayers: tuple[str, ...] = option(
        (FEED_FORWARD,), "sublayers that are adapted: feed_forward", choices=SUBLAYERS
    )

    def check(self) -> None:
        """Raise a UserError for another sublayer than feed-forward."""
        if self.sublayers != (FEED_FORWARD,):
            raise UserError(
                f"--sublayers {','.join(self.sublayers)}: this family stands behind feed_forward only"
            )


class AfterNorm(Bottleneck):
    """LN_own(a(LN(s)) + s), where s = x + f(x) is what the layer's own norm reads."""

    def __init__(self, width: int, config: PfeifferAfterLayerNormConfig, bottleneck: int) -> None:
        super().__init__(
            width, bottleneck, config.adapter_activation, config.adapter_dropout, near_zero=False
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def behind(self, normed: Tensor, total: Tensor) -> Tensor:
        """``[..., width]`` twice → ``[..., width]``."""
        return self.norm(self(normed) + total)


class PfeifferAfterLayerNorm(Adapter):
    """In every chosen layer LN(s) becomes LN_own(a(LN(s)) + s), s = FeedForward(x) + x.

    Raises:
        UserError: the encoder is pre-norm, so no layer norm follows its sublayers.
    """

    def __init__(self, config: PfeifferAfterLayerNormConfig, sites: Sites) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites):
            sublayer = layer.sublayers[FEED_FORWARD]
            if sublayer.pre_norm:
                raise UserError(
                    f"pfeiffer_after_layernorm: the {sites.role} encoder normalises before its sublayers, "
                    "so there is no layer norm to stand behind; take pfeiffer"
                )
            module = AfterNorm(sites.width, config, config.bottleneck_of(sites))
            self.layers[number] = nn.ModuleDict({FEED_FORWARD: module})
            self.attach(sublayer.on_normed_sum(module.behind))
