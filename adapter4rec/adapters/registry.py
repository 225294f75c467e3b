"""The adapter families, by name: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.bitfit import BitFit, BitFitConfig
from adapter4rec.adapters.compacter import Compacter, CompacterConfig, Rule
from adapter4rec.adapters.houlsby import Houlsby, HoulsbyConfig
from adapter4rec.adapters.houlsby_parallel import HoulsbyParallel, HoulsbyParallelConfig
from adapter4rec.adapters.k_adapter import KAdapter, KAdapterConfig
from adapter4rec.adapters.layernorm import LayerNormConfig, LayerNorms
from adapter4rec.adapters.lora import Lora, LoraConfig
from adapter4rec.adapters.pfeiffer import Pfeiffer, PfeifferConfig
from adapter4rec.adapters.pfeiffer_after_layernorm import (
    PfeifferAfterLayerNorm,
    PfeifferAfterLayerNormConfig,
)
from adapter4rec.adapters.prompt import Prompt, PromptConfig
from adapter4rec.utils.errors import UserError


@dataclass(frozen=True)
class Family:
    """A kind of adapter.

    Attributes:
        config: its config class.
        build: builds and attaches it to one encoder: ``build(config, sites)``, or with what is shared behind.
        shared: builds what the adapters of both encoders share: ``shared(config)``; None for nothing.
    """

    config: type[AdapterConfig]
    build: Callable[..., Adapter]
    shared: Callable[..., nn.Module] | None = None


FAMILIES: dict[str, Family] = {
    "houlsby": Family(HoulsbyConfig, Houlsby),
    "houlsby_parallel": Family(HoulsbyParallelConfig, HoulsbyParallel),
    "pfeiffer": Family(PfeifferConfig, Pfeiffer),
    "pfeiffer_after_layernorm": Family(PfeifferAfterLayerNormConfig, PfeifferAfterLayerNorm),
    "k_adapter": Family(KAdapterConfig, KAdapter),
    "lora": Family(LoraConfig, Lora),
    "compacter": Family(CompacterConfig, Compacter, shared=Rule),
    "prompt": Family(PromptConfig, Prompt),
    "bitfit": Family(BitFitConfig, BitFit),
    "layernorm": Family(LayerNormConfig, LayerNorms),
}


def family_of(config: AdapterConfig) -> Family:
    """The family that a config belongs to.

    Raises:
        UserError: no registered family has this class of config.
    """
    return FAMILIES[name_of(config)]


def name_of(config: AdapterConfig) -> str:
    """The name of the family that a config belongs to.

    Raises:
        UserError: no registered family has this class of config.
    """
    for name, family in FAMILIES.items():
        if family.config is type(config):
            return name
    raise UserError(
        f"no adapter family has the config {type(config).__name__}; known are {', '.join(FAMILIES)}"
    )
