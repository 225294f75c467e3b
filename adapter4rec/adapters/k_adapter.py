"""K-Adapter (Wang et al., Findings of ACL 2021): a chain of transformer adapters beside the frozen encoder.

"K-Adapter: Infusing Knowledge into Pre-Trained Models with Adapters". The encoder itself is unchanged; a
linear layer combines its output with that of the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.adapters.config import RELEASE, AdapterConfig, LayerChoice
from adapter4rec.models.layouts import Reads
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from adapter4rec.adapters.sites import Sites

_MOST_HEADS = {"item": 12, "user": 2}


@dataclass(frozen=True)
class KAdapterConfig(AdapterConfig):
    """Transformer adapters that read some layers' outputs, or the inputs of the user encoder's blocks."""

    adapter: ClassVar[str] = "adapter4rec.adapters.k_adapter_layers:KAdapter"
    item_layers: LayerChoice = option(
        LayerChoice("ends"), "layers whose outputs adapters read: ends (first and last), all, first:N …"
    )
    user_layers: LayerChoice = option(LayerChoice("all"), "blocks whose inputs adapters read")
    item_inner: int | None = option(
        None,
        "inner width of the item encoder's adapters; default: half of an image encoder's width (384 of 768), "
        "a quarter of a text encoder's (192)",
        least=1,
    )
    item_inner_heads: int | None = option(
        None, "attention heads in them; default: the largest divisor of their width up to 12", least=1
    )
    user_inner: int | None = option(
        None,
        "inner width of the user encoder's adapters; default: a quarter of its width (16 of 64)",
        least=1,
    )
    user_inner_heads: int | None = option(
        None, "attention heads in them; default: 2, or 1 if their width is odd", least=1
    )
    inner_blocks: int = option(2, "transformer blocks of an adapter", least=1)
    adapter_dropout: float = option(0.1, "dropout in these blocks", least=0, most=0.99)
    released_tokens: int = option(
        30, "with --semantics release: tokens that every text is padded to (--title_tokens)", least=1
    )
    lr_item_join: float = option(5e-5, "learning rate of the item joining layer", above=0, most=10)
    lr_user_join: float = option(1e-4, "learning rate of the user joining layer", above=0, most=10)

    def check(self) -> None:
        """Raise a UserError if a number of heads does not divide its width."""
        for role in ("item", "user"):
            inner, heads = getattr(self, f"{role}_inner"), getattr(self, f"{role}_inner_heads")
            if inner and heads and inner % heads:
                raise UserError(f"--{role}_inner_heads {heads}: must divide --{role}_inner {inner}")

    def sizes_of(self, sites: Sites) -> tuple[int, int]:
        """Inner width and number of heads of the adapters of an encoder.

        Raises:
            UserError: the number of heads does not divide the width, which follows the encoder.
        """
        role, inner, heads = sites.role, self.size_of(sites, "inner"), self.size_of(sites, "inner_heads")
        parts = 2 if sites.layout.reads is Reads.PATCHES else 4
        inner = inner or max(1, sites.width // parts)
        heads = heads or max(count for count in range(1, _MOST_HEADS[role] + 1) if inner % count == 0)
        if inner % heads:
            raise UserError(f"--{role}_inner_heads {heads}: must divide the inner width {inner}")
        return inner, heads

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """The layers that the chain reads and the last one; fewer can be cached if layer norms are trained.

        Raises:
            UserError: with the release semantics, texts are padded, and padding is not cached.
        """
        if self.semantics == RELEASE:
            raise UserError(
                "--cache_frozen true: not supported for k_adapter with --semantics release, which reads "
                "padding; padding is not cached"
            )
        if self.train_layer_norms:
            return super().frozen_outputs(count)
        return tuple(sorted({*self.item_layers.of(count, "item_layers"), count - 1}))

    def learning_rates(self) -> dict[str, float]:
        """The joining layers have their own learning rates."""
        return {"item_join": self.lr_item_join, "user_join": self.lr_user_join}
