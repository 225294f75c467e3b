"""Pfeiffer adapters after the layer norm (Pfeiffer et al., EACL 2021, "AdapterFusion")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.config import FEED_FORWARD
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from torch import nn

    from adapter4rec.adapters.sites import Sublayer, Undo


@dataclass(frozen=True)
class PfeifferAfterLayerNormConfig(BottleneckConfig):
    """One adapter per layer, after the layer norm that follows feed-forward, with its own layer norm.

    LN(s) becomes LN_own(a(LN(s)) + s), where s = x + FeedForward(x). Post-norm encoders only.
    """

    module: ClassVar[str] = "adapter4rec.adapters.bottleneck_layers:AfterNorm"

    sublayers: tuple[str, ...] = option(
        (FEED_FORWARD,), "sublayers that are adapted: feed_forward", choices=(FEED_FORWARD,)
    )

    def attach(self, sublayer: Sublayer, module: nn.Module) -> Undo:
        """Attach the module of a sublayer to its layer norm."""
        own_norm = module.get_submodule("norm")
        return sublayer.on_normed_sum(lambda normed, s: own_norm(module(normed) + s))
