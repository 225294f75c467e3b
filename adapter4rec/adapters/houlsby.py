"""Houlsby adapters (Houlsby et al., ICML 2019, "Parameter-Efficient Transfer Learning for NLP")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.bottleneck import BottleneckConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class HoulsbyConfig(BottleneckConfig):
    """Serial adapters after attention and after feed-forward, in every layer.

    In every sublayer f of an encoder, y = f(x) becomes A(y) = y + a(y), before the residual is added.
    """

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """A(y) = y + W_up ReLU(W_down y + b_down) + b_up."""
        return y + module(y)
