"""The modules of K-Adapter: a chain of transformer adapters, and the layer that joins it to the encoder."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.data.packing import Packing
from adapter4rec.models.user_encoders.transformer import TransformerBlock


class TransformerAdapter(nn.Module):
    """x + up(Blocks(down(x))): the blocks are those of the user encoder, of the inner width.

    Projections are initialised from N(0, 0.0002²) with zero biases, the blocks as torch does.
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
        """``[batch, positions, width]`` → the same shape; attention is masked by ``mask``."""
        inner = self.down(x)
        for block in self.blocks:
            inner = block(inner, mask)
        y: Tensor = x + self.up(inner)
        return y


class KAdapter(Adapter):
    """a_i = A_i(h_i + a_(i-1)), and the encoder's output h becomes W [h, a_last] + b.

    h_i is the output of a chosen layer in the item encoder, and the input of a chosen block in the user
    encoder. In pre-norm encoders h is the last layer's output, before the final layer norm. ``chain.i`` are
    the adapters in order and ``join`` is the linear layer, initialised as torch does: before training, the
    output is not that of the source model.
    """

    def __init__(self, config: KAdapterConfig, sites: Sites) -> None:
        super().__init__()
        inner, heads = config.sizes_of(sites)
        chosen = list(config.layers_of(sites).values())
        chain = [TransformerAdapter(sites.width, inner, heads, config) for _ in chosen]
        self.chain = nn.ModuleList(chain)
        self.join = nn.Linear(2 * sites.width, sites.width)
        self.groups["join"] = f"{sites.role}_join"
        self._mask: Tensor | Packing | None = None
        self._latest: Tensor | None = None
        self.attach(sites.on_mask(self._remember))
        for module, layer in zip(chain, chosen, strict=True):
            self.attach(layer.on_state(partial(self._read, module, sites.role == "item")))
        self.attach(sites.layers[-1].on_state(self._joined))

    def _remember(self, mask: Tensor | Packing | None) -> None:
        self._mask, self._latest = mask, None

    def _read(
        self, module: TransformerAdapter, reads_output: bool, output: Tensor, layer_input: Tensor
    ) -> Tensor:
        state = output if reads_output else layer_input
        self._latest = module(state if self._latest is None else state + self._latest, self._mask)
        return output

    def _joined(self, output: Tensor, layer_input: Tensor) -> Tensor:
        latest, self._latest = self._latest, None
        assert latest is not None  # at least one layer is chosen
        joined: Tensor = self.join(torch.cat([output, latest], dim=-1))
        return joined
