"""Selective families: only some of the encoder's own parameters are trained.

BitFit (Ben Zaken et al., ACL 2022) trains the biases, the other family the layer norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class BitFitConfig(AdapterConfig):
    """Every bias of the chosen layers, layer norms included; with all layers, all biases of the encoder."""

    adapter: ClassVar[str] = "adapter4rec.adapters.base:Adapter"

    def build(self, sites: Sites) -> Adapter:
        """Copies of the biases: W x + b becomes W x + b', initialised with b' = b.

        Raises:
            UserError: the chosen layers have no biases, as in ModernBERT.
        """
        layers = list(self.layers_of(sites).values())
        elsewhere = set(sites.layer_norms_of(layers)) if self.train_layer_norms else set()
        names = [name for name in sites.parameters_of(layers) if name.rpartition(".")[2] == "bias"]
        if not names:
            raise UserError(f"bitfit: the chosen layers of the {sites.role} encoder have no biases")
        adapter = super().build(sites)
        adapter.train_copies("biases", sites.encoder, [name for name in names if name not in elsewhere])
        return adapter


@dataclass(frozen=True)
class LayerNormConfig(AdapterConfig):
    """Weights and biases of the layer norms of the chosen layers; with all layers, of the whole encoder.

    It has no module of its own: ``add_adapters`` trains layer norms for every family that asks for it.
    """

    adapter: ClassVar[str] = "adapter4rec.adapters.base:Adapter"
    train_layer_norms: bool = option(True, "always true: nothing else is trained")

    def check(self) -> None:
        """Raise a UserError if the layer norms are not trained."""
        if not self.train_layer_norms:
            raise UserError("--train_layer_norms false: layernorm trains nothing else")
