"""LoRA (Hu et al., ICLR 2022, "LoRA: Low-Rank Adaptation of Large Language Models")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adapter4rec.adapters.config import PROJECTIONS, AdapterConfig
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class LoraConfig(AdapterConfig):
    """Low-rank updates of the query and value projections of every layer."""

    adapter: ClassVar[str] = "adapter4rec.adapters.lora_layers:Lora"
    projections: tuple[str, ...] = option(
        PROJECTIONS, "projections that are adapted: query,value", choices=PROJECTIONS
    )
    item_rank: int = option(12, "rank r in the item encoder; it does not follow the width", least=1)
    user_rank: int = option(4, "rank r in the user encoder, likewise", least=1)
    lora_alpha: float = option(1.0, "alpha; the update is scaled by alpha / r", above=0)
    lora_dropout: float = option(0.0, "dropout of the input of the update", least=0, most=0.99)
