"""K-Adapter (Wang et al., Findings of ACL 2021): a chain of transformer adapters beside the frozen encoder.

"K-Adapter: Infusing Knowledge into Pre-Trained Models with Adapters". The encoder never sees the chain; a
linear layer joins both at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import RELEASE, Adapter, AdapterConfig, LayerChoice
from adapter4rec.adapters.sites import Sites
from adapter4rec.data.packing import Packing
from adapter4rec.models.user_encoder import TransformerBlock
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class KAdapterConfig(AdapterConfig):
    """Transformer adapters that read some layers' outputs, or the inputs of the user encoder's blocks."""

    item_layers: LayerChoice = option(
        LayerChoice("ends"), "layers whose outputs adapters read: ends (first and last), all, first:N …"
    )
    user_layers: LayerChoice = option(LayerChoice("all"), "blocks whose inputs adapters read")
    item_inner: int = option(384, "inner width of the item encoder's adapters (text launcher: 192)", least=1)
    item_inner_heads: int = option(12, "attention heads in them", least=1)
    user_inner: int = option(16, "inner width of the user encoder's adapters", least=1)
    user_inner_heads: int = option(2, "attention heads in them", least=1)
    inner_blocks: int = option(2, "transformer blocks of an adapter", least=1)
    adapter_dropout: float = option(0.1, "dropout in these blocks", least=0, most=0.99)
    released_tokens: int = option(
        30, "with --semantics release: tokens that every text is padded to (--title_tokens)", least=1
    )
    lr_item_join: float = option(5e-5, "learning rate of the item encoder's joining layer", above=0, most=10)
    lr_user_join: float = option(1e-4, "learning rate of the user encoder's joining layer", above=0, most=10)

    def check(self) -> None:
        """Raise a UserError where heads do not divide a width."""
        for role in ("item", "user"):
            inner, heads = getattr(self, f"{role}_inner"), getattr(self, f"{role}_inner_heads")
            if inner % heads:
                raise UserError(f"--{role}_inner_heads {heads}: must divide --{role}_inner {inner}")

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """All that the chain and the joining layer read, unless layer norms between are trained.

        Raises:
            UserError: as released, texts are padded before they are read.
        """
        if self.semantics == RELEASE:
            raise UserError("--cache_frozen true: as released, K-Adapter reads padding, which is not cached")
        if self.train_layer_norms:
            return super().frozen_outputs(count)
        return tuple(sorted({*self.item_layers.of(count, "item_layers"), count - 1}))

    def learning_rates(self) -> dict[str, float]:
        """The joining layers have rates of their own."""
        return {"item_join": self.lr_item_join, "user_join": self.lr_user_join}


class TransformerAdapter(nn.Module):
    """x + up(Blocks(down(x))): the blocks are those of the user encoder, of the inner width.

    Projections begin as N(0, 0.0002²) with zero biases, the blocks as torch initialises them.
    """

    def __init__(self, width: int, inner: int, heads: int, config: KAdapterConfig) -> None:
        super().__init__()
        self.down = nn.Linear(width, inner)
        self.blocks = nn.ModuleList(
            TransformerBlock(inner, heads, config.adapter_dropout) for _ in range(config.inner_blocks)
        )
        self.up = nn.Linear(inner, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=2e-4)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor | Packing | None) -> Tensor:
        """``[batch, places, width]`` → the same, attending as ``mask`` allows."""
        inner = self.down(x)
        for block in self.blocks:
            inner = block(inner, mask)
        return x + self.up(inner)


class KAdapter(Adapter):
    """a_i = A_i(h_i + a_(i-1)), and the encoder's output h becomes W [h, a_last] + b.

    h_i is the output of a chosen layer in the item encoder, and the input of a chosen block in the user
    encoder. In pre-norm encoders h is the last layer's output, before the final layer norm. ``chain.i`` are
    the adapters in their order, ``join`` is the linear layer; it begins as torch initialises it, so that the
    joined output is not that of the source model.
    """

    def __init__(self, config: KAdapterConfig, sites: Sites) -> None:
        super().__init__()
        inner, heads = (
            (config.item_inner, config.item_inner_heads)
            if sites.role == "item"
            else (config.user_inner, config.user_inner_heads)
        )
        chosen = config.layers_of(sites)
        self.chain = nn.ModuleList(TransformerAdapter(sites.width, inner, heads, config) for _ in chosen)
        self.join = nn.Linear(2 * sites.width, sites.width)
        self._mask: Tensor | Packing | None = None
        self._latest: Tensor | None = None
        self.attach(sites.on_mask(self._remember))
        for module, (_, layer) in zip(self.chain, chosen, strict=True):
            self.attach(layer.on_state(self._reading(module, outputs=sites.role == "item")))
        self.attach(sites.layers[-1].on_state(self._joined))

    def _remember(self, mask: Tensor | Packing | None) -> None:
        self._mask, self._latest = mask, None

    def _reading(self, module: TransformerAdapter, *, outputs: bool) -> Callable[[Tensor, Tensor], Tensor]:
        def read(output: Tensor, layer_input: Tensor) -> Tensor:
            state = output if outputs else layer_input
            self._latest = module(state if self._latest is None else state + self._latest, self._mask)
            return output

        return read

    def _joined(self, output: Tensor, layer_input: Tensor) -> Tensor:
        del layer_input
        latest, self._latest = self._latest, None
        return self.join(torch.cat([output, latest], dim=-1))
