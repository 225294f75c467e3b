"""The adapter families: the config class of each, by name."""

from __future__ import annotations

from adapter4rec.adapters.compacter import CompacterConfig
from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.houlsby import HoulsbyConfig, HoulsbyParallelConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.peft import PeftConfig
from adapter4rec.adapters.pfeiffer import PfeifferAfterLayerNormConfig, PfeifferConfig
from adapter4rec.adapters.prompt import PromptConfig
from adapter4rec.adapters.selective import BitFitConfig, LayerNormConfig
from adapter4rec.utils.errors import UserError

FAMILIES: dict[str, type[AdapterConfig]] = {
    "houlsby": HoulsbyConfig,
    "houlsby_parallel": HoulsbyParallelConfig,
    "pfeiffer": PfeifferConfig,
    "pfeiffer_after_layernorm": PfeifferAfterLayerNormConfig,
    "k_adapter": KAdapterConfig,
    "lora": LoraConfig,
    "compacter": CompacterConfig,
    "prompt": PromptConfig,
    "bitfit": BitFitConfig,
    "layernorm": LayerNormConfig,
    "peft": PeftConfig,
}


def name_of(config: AdapterConfig) -> str:
    """The name of the family that a config belongs to.

    Raises:
        UserError: the config's class is not registered.
    """
    for name, family in FAMILIES.items():
        if family is type(config):
            return name
    raise UserError(
        f"{type(config).__name__} is not the config of an adapter family; known families: "
        f"{', '.join(FAMILIES)}"
    )
