"""Compacter (Karimi Mahabadi et al., NeurIPS 2021): Houlsby's sites, with layers of Kronecker products.

"Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", equations 3 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.config import ACTIVATIONS
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from torch import nn

    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class CompacterConfig(HoulsbyConfig):
    """Houlsby's adapters with weights that are sums of Kronecker products.

    One factor of each product, the rule, is shared by all layers of both encoders.
    """

    adapter_activation: str = option("gelu_tanh", "activation in the bottleneck", choices=ACTIVATIONS)
    divisions: int = option(4, "n, number of Kronecker products that make a weight", least=1)
    factor_rank: int = option(1, "rank of their right factors", least=1)
    lr_rule: float = option(1e-4, "learning rate of the shared rule", above=0, most=10)

    def learning_rates(self) -> dict[str, float]:
        """The shared rule has its own learning rate."""
        return {"shared": self.lr_rule}

    def build_shared(self) -> nn.Module:
        """The rule."""
        from adapter4rec.adapters.compacter_layers import Rule

        return Rule(self)

    def build_module(self, sites: Sites, shared: nn.Module | None) -> nn.Module:
        """The hypercomplex bottleneck of one sublayer."""
        from adapter4rec.adapters.compacter_layers import HypercomplexBottleneck

        return HypercomplexBottleneck(sites.width, self.bottleneck_of(sites), self, shared)
