"""Pfeiffer adapters (Pfeiffer et al., EACL 2021, "AdapterFusion"): one adapter per layer instead of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.config import ATTENTION, FEED_FORWARD, SUBLAYERS
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from torch import nn

    from adapter4rec.adapters.sites import Sublayer, Undo


@dataclass(frozen=True)
class PfeifferConfig(HoulsbyConfig):
    """One serial adapter per layer, as the paper's launchers place it: Houlsby's, after attention only.

    y = Attention(x) becomes A(y) = y + a(y).
    """

    sublayers: tuple[str, ...] = option(
        (ATTENTION,), "sublayers that are adapted: attention, or feed_forward", choices=SUBLAYERS
    )


@dataclass(frozen=True)
class PfeifferAfterLayerNormConfig(HoulsbyConfig):
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
