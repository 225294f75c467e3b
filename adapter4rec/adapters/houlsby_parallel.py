"""Parallel adapters (He et al., ICLR 2022).

"Towards a Unified View of Parameter-Efficient Transfer Learning": a bottleneck beside a sublayer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.bottleneck import BottleneckConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class HoulsbyParallelConfig(BottleneckConfig):
    """Houlsby's bottleneck in parallel with each sublayer, with the same input.

    LN(x + f(x)) becomes LN(x + f(x) + a(x)); in pre-norm encoders x + f(LN(x)) becomes x + f(LN(x)) + a(x).
    The bottleneck a reads the same x in both: the residual stream, before any norm.
    """

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """f(x) + a(x); the encoder adds the residual afterwards."""
        return y + module(x)
