"""Soft prompts (Lester et al., EMNLP 2021; for images Jia et al., ECCV 2022, "Visual Prompt Tuning").

Learned vectors that the item encoder reads together with an item's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.adapters.config import PAPER, AdapterConfig
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from torch import nn

    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites


@dataclass(frozen=True)
class PromptConfig(AdapterConfig):
    """Learned tokens in the item encoder; the user encoder has none."""

    encoders: tuple[str, ...] = option(("item",), "which encoders are adapted: item")
    prompt_tokens: int = option(30, "learned tokens (the launchers: 30 with text, 10 with images)", least=1)

    def check(self) -> None:
        """Raise a UserError if the user encoder is chosen, or only some layers."""
        if self.encoders != ("item",):
            raise UserError(
                f"--encoders {','.join(self.encoders)}: a prompt consists of tokens of the item encoder; "
                "the user encoder has no tokens"
            )
        if self.item_layers != "all":
            raise UserError(f"--item_layers {self.item_layers}: a prompt is an input of the first layer")

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """None: the prompt changes the input of the first layer."""
        del count
        return ()

    @property
    def further_tokens(self) -> int:
        """The prompt is read together with the title; in the released code it overwrites words of it."""
        return self.prompt_tokens if self.semantics == PAPER else 0

    def build(self, sites: Sites, shared: nn.Module | None = None) -> Adapter:
        """See :class:`Prompt`."""
        from adapter4rec.adapters.prompt_layers import Prompt

        del shared
        return Prompt(self, sites)
