"""Soft prompts (Lester et al., EMNLP 2021; for images Jia et al., ECCV 2022, "Visual Prompt Tuning").

Learned vectors that the item encoder reads together with an item's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from adapter4rec.adapters.config import PAPER, AdapterConfig, LayerChoice
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class PromptConfig(AdapterConfig):
    """Learned tokens in the item encoder; the user encoder has none."""

    adapter: ClassVar[str] = "adapter4rec.adapters.prompt_layers:Prompt"
    encoders: tuple[str, ...] = option(("item",), "encoders that are adapted: item", choices=("item",))
    item_layers: LayerChoice = option(
        LayerChoice("all"), "always all: a prompt is an input of the first layer", choices=("all",)
    )
    prompt_tokens: int = option(30, "learned tokens (the launchers: 30 with text, 10 with images)", least=1)

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """None: the prompt changes the input of the first layer."""
        return ()

    @property
    def further_tokens(self) -> int:
        """The prompt is read together with the title; in the released code it overwrites words of it."""
        return self.prompt_tokens if self.semantics == PAPER else 0
