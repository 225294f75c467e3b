"""Layer norms only: nothing else of the adapted encoders is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class LayerNormConfig(AdapterConfig):
    """Weights and biases of the layer norms of the chosen layers; with all layers, of the whole encoder."""

    train_layer_norms: bool = option(True, "always true: nothing else is trained")

    def check(self) -> None:
        """Raise a UserError if the layer norms are not trained."""
        if not self.train_layer_norms:
            raise UserError("--train_layer_norms false: layernorm trains nothing else")

    def build(self, sites: Sites) -> Adapter:
        """No module of its own: ``add_adapters`` trains layer norms for every family that asks for it."""
        from adapter4rec.adapters.base import Adapter

        return Adapter()
