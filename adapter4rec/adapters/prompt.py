"""Soft prompts (Lester et al., EMNLP 2021; for images Jia et al., ECCV 2022, "Visual Prompt Tuning").

Learned vectors that the item encoder reads besides an item's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.layouts import Reads
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class PromptConfig(AdapterConfig):
    """Learned tokens in the item encoder; the user encoder has none."""

    encoders: tuple[str, ...] = option(("item",), "which encoders are adapted: item")
    prompt_tokens: int = option(30, "learned tokens (the launchers: 30 with text, 10 with images)", least=1)

    def check(self) -> None:
        """Raise a UserError where another encoder is chosen, or only some layers."""
        if self.encoders != ("item",):
            raise UserError(
                f"--encoders {','.join(self.encoders)}: a prompt is tokens of the item encoder; "
                "the user encoder reads none"
            )
        if self.item_layers != "all":
            raise UserError(f"--item_layers {self.item_layers}: a prompt stands before all layers")

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """None: the prompt changes what the first layer reads."""
        del count
        return ()

    @property
    def further_tokens(self) -> int:
        """The prompt stands beside the title."""
        return self.prompt_tokens


class Prompt(Adapter):
    """[CLS], prompt, title for text; [CLS], patches, prompt for images (see ``Sites.on_tokens``).

    With text the vectors begin as the first words of the vocabulary, with images as zero.
    """

    def __init__(self, config: PromptConfig, sites: Sites) -> None:
        super().__init__()
        count = config.prompt_tokens
        if sites.reads is Reads.WORDS:
            words = sites.encoder.get_input_embeddings().weight
            if count > len(words):
                raise UserError(
                    f"--prompt_tokens {count}: the vocabulary has {len(words)} words to begin with"
                )
            self.vectors = nn.Parameter(words[:count].detach().clone())
        else:
            self.vectors = nn.Parameter(torch.zeros(count, sites.width))
        self.attach(sites.on_tokens(self.vectors))
