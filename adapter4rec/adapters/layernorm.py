"""Layer norms only: of the adapted encoders the layer norms are trained and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class LayerNormConfig(AdapterConfig):
    """Weights and biases of the layer norms of the chosen layers; with all layers, of those outside too."""

    train_layer_norms: bool = option(True, "always true: nothing else is trained")

    def check(self) -> None:
        """Raise a UserError where not even the layer norms are to be trained."""
        if not self.train_layer_norms:
            raise UserError("--train_layer_norms false: layernorm trains nothing else")


class LayerNorms(Adapter):
    """No module of its own: training the layer norms is what every family offers."""

    def __init__(self, config: LayerNormConfig, sites: Sites) -> None:
        super().__init__()
        del config, sites
