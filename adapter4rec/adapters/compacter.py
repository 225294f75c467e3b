"""Compacter (Karimi Mahabadi et al., NeurIPS 2021): Houlsby's sites, with layers of Kronecker products.

"Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", equations 3 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.config import ACTIVATIONS
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class CompacterConfig(HoulsbyConfig):
    """Houlsby's adapters with weights that are sums of Kronecker products.

    One factor of each product, the rule, is shared by all layers of both encoders.
    """

    module: ClassVar[str] = "adapter4rec.adapters.bottleneck_layers:HypercomplexBottleneck"
    adapter_activation: str = option("gelu_tanh", "activation in the bottleneck", choices=ACTIVATIONS)
    divisions: int = option(4, "n, number of Kronecker products that make a weight", least=1)
    factor_rank: int = option(1, "rank of their right factors", least=1)
    lr_rule: float = option(1e-4, "learning rate of the shared rule", above=0, most=10)

    def learning_rates(self) -> dict[str, float]:
        """The shared rule has its own learning rate."""
        return {"shared": self.lr_rule}

    def build_all(self, sites: Mapping[str, Sites]) -> Iterator[tuple[str, Adapter]]:
        """The rule, then the adapters."""
        from adapter4rec.adapters.bottleneck_layers import Rule, SublayerAdapter

        rule = Rule(self.divisions)
        yield "shared", rule
        for role, own in sites.items():
            yield role, SublayerAdapter(self, own, rule)
