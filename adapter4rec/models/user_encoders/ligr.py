"""LiGR: pre-norm transformer blocks with gated residuals.

The block is that of Borisyuk et al. 2025 ("From Features to Transformers: Redefining Ranking for Scalable
Impact", arXiv 2502.03417), in the form that eSASRec uses (Tikhonovich et al., RecSys 2025, arXiv 2508.06450).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.models.dropout import Dropout
from adapter4rec.models.layouts import EncoderLayout, Reads, SublayerLayout
from adapter4rec.models.user_encoders.base import AttentionUserEncoder, causal_padding_mask, xavier_normal


class LigrBlock(nn.Module):
    """x + σ(W_g x + b_g) ⊙ f(LN(x)) for attention, then for feed-forward, each with its own gate.

    The feed-forward sublayer is a SwiGLU of hidden width 4d, W_2 (SiLU(W_1 x) ⊙ W_3 x), without biases.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.attention_output = nn.Linear(dim, dim)
        self.attention_dropout = Dropout(dropout)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=1e-6)
        self.activated, self.linear = (nn.Linear(dim, 4 * dim, bias=False) for _ in range(2))
        self.inner_dropout = Dropout(dropout)
        self.down = nn.Linear(4 * dim, dim, bias=False)
        self.feed_forward_dropout = Dropout(dropout)
        self.feed_forward_gate = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [users, L, d]`` and additive ``mask [users, 1, L, L]`` → ``[users, L, d]``."""
        x = x + torch.sigmoid(self.attention_gate(x)) * self._attended(self.attention_norm(x), mask)
        y = self.feed_forward_norm(x)
        inner = self.inner_dropout(F.silu(self.activated(y)) * self.linear(y))
        gate = torch.sigmoid(self.feed_forward_gate(x))
        added: Tensor = x + gate * self.feed_forward_dropout(self.down(inner))
        return added

    def _attended(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        dropped = self.inner_dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
        output: Tensor = self.attention_dropout(self.attention_output(attended.transpose(1, 2).flatten(-2)))
        return output


class LigrUserEncoder(AttentionUserEncoder):
    """Item and position embeddings are added, with dropout, and pass through the blocks.

    Args: see :class:`AttentionUserEncoder`; dropout is applied to the input, to attention weights, inside
    feed-forward and to the output of each sublayer.
    """

    layout: ClassVar[EncoderLayout | None] = EncoderLayout(
        layers="blocks",
        attention=SublayerLayout(entry="attention_norm", output="attention_dropout", norm="attention_norm"),
        feed_forward=SublayerLayout(
            entry="feed_forward_norm", output="feed_forward_dropout", norm="feed_forward_norm"
        ),
        query=("query",),
        value=("value",),
        reads=Reads.ITEMS,
    )
    """Sites where adapters attach. The gate multiplies what they return."""

    def __init__(self, dim: int, max_seq_len: int, heads: int, blocks: int, dropout: float) -> None:
        super().__init__(dim, max_seq_len, heads, blocks, dropout)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(LigrBlock(dim, heads, dropout) for _ in range(blocks))
        self.apply(xavier_normal)

    def describe(self) -> str:
        """Kind and sizes in a few words."""
        return f"LiGR, {super().describe()}"

    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """See :meth:`UserEncoder.forward`."""
        x: Tensor = self.dropout(items + self.position_embedding.weight)
        mask = causal_padding_mask(log_mask, x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return x
