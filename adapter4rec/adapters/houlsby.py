"""Bottleneck adapters: serial (Houlsby et al.) and parallel (He et al.).

Houlsby et al., ICML 2019, "Parameter-Efficient Transfer Learning for NLP", and He et al., ICLR 2022, "Towards
a Unified View of Parameter-Efficient Transfer Learning".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.config import ACTIVATIONS, SUBLAYERS, AdapterConfig
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from adapter4rec.adapters.sites import Sites, Sublayer, Undo


@dataclass(frozen=True)
class HoulsbyConfig(AdapterConfig):
    """Bottleneck adapters.

    Serial adapters after attention and after feed-forward, in every layer: in every sublayer f of an encoder,
    y = f(x) becomes A(y) = y + a(y), before the residual is added.

    A family that changes the outputs of sublayers by another formula overrides :meth:`change`.
    """

    adapter: ClassVar[str] = "adapter4rec.adapters.bottleneck_layers:SublayerAdapter"
    module: ClassVar[str] = "adapter4rec.adapters.bottleneck_layers:Bottleneck"
    """Class of the module of a sublayer, built from the encoder's width, inner width and config."""

    sublayers: tuple[str, ...] = option(SUBLAYERS, "sublayers that are adapted", choices=SUBLAYERS)
    item_bottleneck: int | None = option(
        None,
        "inner width of the item encoder's adapters; default: a twelfth of its width (64 of 768)",
        least=1,
    )
    user_bottleneck: int | None = option(
        None,
        "inner width of the user encoder's adapters; default: a quarter of its width (16 of 64)",
        least=1,
    )
    adapter_activation: str = option("relu", "activation in the bottleneck", choices=ACTIVATIONS)
    adapter_dropout: float = option(0.0, "dropout after the bottleneck", least=0, most=0.99)

    def bottleneck_of(self, sites: Sites) -> int:
        """Inner width of the adapters of an encoder.

        The default is a share of the encoder's width that gives the paper's 64 of 768 and 16 of 64. It is a
        multiple of 4, into which Compacter divides weights.
        """
        parts = 4 if sites.role == "user" else 12
        return self.size_of(sites, "bottleneck") or 4 * max(1, round(sites.width / (4 * parts)))

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """A(y) = y + W_up ReLU(W_down y + b_down) + b_up, the new output of a sublayer f.

        Args:
            module: the module of this sublayer.
            y: f(x), ``[batch, positions, width]``.
            x: the residual stream, of the same shape.
        """
        return y + module(y)

    def attach(self, sublayer: Sublayer, module: nn.Module) -> Undo:
        """Attach the module of a sublayer, by default to its output."""
        return sublayer.on_output(partial(self.change, module))


@dataclass(frozen=True)
class HoulsbyParallelConfig(HoulsbyConfig):
    """Houlsby's bottleneck in parallel with each sublayer, with the same input.

    LN(x + f(x)) becomes LN(x + f(x) + a(x)); in pre-norm encoders x + f(LN(x)) becomes x + f(LN(x)) + a(x).
    The bottleneck a reads the same x in both: the residual stream, before any norm.
    """

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """f(x) + a(x); the encoder adds the residual afterwards."""
        return y + module(x)
