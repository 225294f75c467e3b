"""BitFit (Ben Zaken et al., ACL 2022): of the adapted encoders the biases are trained and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.utils.errors import UserError


@dataclass(frozen=True)
class BitFitConfig(AdapterConfig):
    """Every bias of the chosen layers, those of layer norms included; with all layers, those outside too."""


class BitFit(Adapter):
    """The encoder computes with copies of its biases: W x + b becomes W x + b', with b' = b at the start.

    Raises:
        UserError: the encoder has none, as ModernBERT.
    """

    def __init__(self, config: BitFitConfig, sites: Sites) -> None:
        super().__init__()
        elsewhere = set(config.layer_norms_of(sites)) if config.train_layer_norms else set()
        names = [name for name in config.parameters_of(sites) if name.rpartition(".")[2] == "bias"]
        if not names:
            raise UserError(f"bitfit: the {sites.role} encoder's chosen layers have no biases to train")
        self.train_copies("biases", sites.encoder, [name for name in names if name not in elsewhere])
