"""HSTU without timestamps (Zhai et al., ICML 2024, "Actions Speak Louder than Words", arXiv 2402.17152)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.models.dropout import Dropout
from adapter4rec.models.layouts import EncoderLayout, Reads, SublayerLayout
from adapter4rec.models.user_encoders.base import AttentionUserEncoder, xavier_normal


class HstuBlock(nn.Module):
    """x + W_o (LN(A V) ⊙ U) + b_o, with U, V, Q, K = SiLU(W LN(x)) and A = SiLU(Q Kᵀ + R) / L.

    Attention weights are not normalised by a softmax. R_ij is a learned bias for the distance i - j, shared
    by the heads; A is zero where position i may not attend to position j. There is no feed-forward sublayer:
    the gate U takes its place.
    """

    def __init__(self, dim: int, max_seq_len: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.gate, self.value, self.query, self.key = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.distance = nn.Embedding(max_seq_len, 1)
        self.attended_norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [users, L, d]`` and bool ``mask [users, 1, L, L]``, true where attended → ``[users, L, d]``."""
        length, normed = x.shape[1], self.norm(x)
        gate = F.silu(self.gate(normed))
        value, query, key = (
            F.silu(projection(normed)).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for projection in (self.value, self.query, self.key)
        )
        places = torch.arange(length, device=x.device)
        distances = (places[:, None] - places).clamp(min=0)
        scores = query @ key.transpose(-1, -2) + self.distance(distances).squeeze(-1)
        weights = F.silu(scores) * mask / self.distance.num_embeddings
        attended = (weights @ value).transpose(1, 2).flatten(-2)
        added: Tensor = x + self.output(self.dropout(self.attended_norm(attended) * gate))
        return added


class HstuUserEncoder(AttentionUserEncoder):
    """Item and position embeddings are added, with dropout, and pass through the blocks and a layer norm.

    Args: see :class:`AttentionUserEncoder`; dropout is applied to the input and before the output projection
    of each block.
    """

    layout: ClassVar[EncoderLayout | None] = EncoderLayout(
        layers="blocks",
        attention=SublayerLayout(entry="norm", output="output", norm="norm"),
        feed_forward=None,
        query=("query",),
        value=("value",),
        reads=Reads.ITEMS,
    )
    """Sites where adapters attach; there are none of a feed-forward sublayer."""

    def __init__(self, dim: int, max_seq_len: int, heads: int, blocks: int, dropout: float) -> None:
        super().__init__(dim, max_seq_len, heads, blocks, dropout)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(HstuBlock(dim, max_seq_len, heads, dropout) for _ in range(blocks))
        self.layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(xavier_normal)

    def describe(self) -> str:
        """Kind and sizes in a few words."""
        return f"HSTU, {super().describe()}"

    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """See :meth:`UserEncoder.forward`."""
        x: Tensor = self.dropout(items + self.position_embedding.weight)
        length = log_mask.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        mask = causal & log_mask[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        vectors: Tensor = self.layer_norm(x)
        return vectors
