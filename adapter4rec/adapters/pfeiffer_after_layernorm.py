"""Pfeiffer adapters after the layer norm (Pfeiffer et al., EACL 2021, "AdapterFusion")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.config import FEED_FORWARD, SUBLAYERS
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from torch import nn

    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class PfeifferAfterLayerNormConfig(BottleneckConfig):
    """One adapter per layer, after the layer norm that follows feed-forward, with its own layer norm."""

    sublayers: tuple[str, ...] = option(
        (FEED_FORWARD,), "sublayers that are adapted: feed_forward", choices=SUBLAYERS
    )

    def check(self) -> None:
        """Raise a UserError for a sublayer other than feed-forward."""
        if self.sublayers != (FEED_FORWARD,):
            raise UserError(
                f"--sublayers {','.join(self.sublayers)}: pfeiffer_after_layernorm supports feed_forward only"
            )

    def build(self, sites: Sites, shared: nn.Module | None = None) -> Adapter:
        """See :class:`PfeifferAfterLayerNorm`."""
        from adapter4rec.adapters.pfeiffer_after_layernorm_layers import PfeifferAfterLayerNorm

        del shared
        return PfeifferAfterLayerNorm(self, sites)
