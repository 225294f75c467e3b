"""Options of the families that are made of bottlenecks, one in each chosen sublayer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.config import ACTIVATIONS, SUBLAYERS, AdapterConfig
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from adapter4rec.adapters.sites import Sublayer, Undo


@dataclass(frozen=True)
class BottleneckConfig(AdapterConfig):
    """Bottleneck adapters.

    Base of the families that change the output of sublayers, each by a module of its own. A family implements
    :meth:`change`, its formula.
    """

    adapter: ClassVar[str] = "adapter4rec.adapters.bottleneck_layers:SublayerAdapter"
    module: ClassVar[str] = "adapter4rec.adapters.bottleneck_layers:Bottleneck"
    """Class of the module of one sublayer, built from width, inner width and config."""

    sublayers: tuple[str, ...] = option(SUBLAYERS, "sublayers that are adapted", choices=SUBLAYERS)
    item_bottleneck: int = option(64, "inner width of the item encoder's adapters", least=1)
    user_bottleneck: int = option(16, "inner width of the user encoder's adapters", least=1)
    adapter_activation: str = option("relu", "activation in the bottleneck", choices=ACTIVATIONS)
    adapter_dropout: float = option(0.0, "dropout after the bottleneck", least=0, most=0.99)

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """The new output of a sublayer f.

        Args:
            module: the module of this sublayer.
            y: f(x), ``[batch, positions, width]``.
            x: the residual stream, of the same shape.
        """
        raise NotImplementedError

    def attach(self, sublayer: Sublayer, module: nn.Module) -> Undo:
        """Attach the module of a sublayer, by default to its output."""
        return sublayer.on_output(partial(self.change, module))
