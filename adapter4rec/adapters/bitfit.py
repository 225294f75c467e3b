"""BitFit (Ben Zaken et al., ACL 2022): only the biases of the adapted encoders are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class BitFitConfig(AdapterConfig):
    """Every bias of the chosen layers, layer norms included; with all layers, all biases of the encoder."""

    def build(self, sites: Sites) -> Adapter:
        """Copies of the biases: W x + b becomes W x + b', initialised with b' = b.

        Raises:
            UserError: the chosen layers have no biases, as in ModernBERT.
        """
        from adapter4rec.adapters.base import Adapter

        layers = list(self.layers_of(sites).values())
        elsewhere = set(sites.layer_norms_of(layers)) if self.train_layer_norms else set()
        names = [name for name in sites.parameters_of(layers) if name.rpartition(".")[2] == "bias"]
        if not names:
            raise UserError(f"bitfit: the chosen layers of the {sites.role} encoder have no biases")
        adapter = Adapter()
        adapter.train_copies("biases", sites.encoder, [name for name in names if name not in elsewhere])
        return adapter
