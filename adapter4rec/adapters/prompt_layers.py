"""The vectors of a soft prompt."""

from __future__ import annotations

import torch
from torch import nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.prompt import PromptConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.layouts import Reads
from adapter4rec.utils.errors import UserError


class Prompt(Adapter):
    """[CLS], prompt, title for text; [CLS], patches, prompt for images (see ``Sites.on_tokens``).

    Initialised from the first words of the vocabulary for text, and with zero for images.
    """

    def __init__(self, config: PromptConfig, sites: Sites) -> None:
        super().__init__()
        count = config.prompt_tokens
        if sites.layout.reads is Reads.WORDS:
            words = sites.vocabulary.get_parameter("weight")
            if count > len(words):
                raise UserError(f"--prompt_tokens {count}: the vocabulary has only {len(words)} words")
            self.vectors = nn.Parameter(words[:count].detach().clone())
        else:
            self.vectors = nn.Parameter(torch.zeros(count, sites.width))
        self.attach(sites.on_tokens(self.vectors))
