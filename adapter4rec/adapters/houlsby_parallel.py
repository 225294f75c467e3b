"""Parallel adapters (He et al., ICLR 2022).

"Towards a Unified View of Parameter-Efficient Transfer Learning": a bottleneck beside a sublayer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from adapter4rec.adapters.bottleneck import BottleneckConfig, SublayerAdapter


@dataclass(frozen=True)
class HoulsbyParallelConfig(BottleneckConfig):
    """Houlsby's bottleneck beside each sublayer: it reads what the sublayer reads."""


class HoulsbyParallel(SublayerAdapter):
    """LN(x + f(x)) becomes LN(x + f(x) + a(x)); in pre-norm encoders x + f(LN(x)) gets + a(x).

    The bottleneck a reads the same x in both: the residual stream, before any norm.
    """

    @staticmethod
    def change(module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """f(x) + a(x); the residual is added behind it."""
        return y + module(x)
