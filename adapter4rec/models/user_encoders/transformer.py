"""The paper's user encoder: a causal transformer over item embeddings (SASRec, Kang & McAuley 2018)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.packing import Packing
from adapter4rec.models.dropout import Dropout
from adapter4rec.models.layouts import EncoderLayout, Reads, SublayerLayout
from adapter4rec.models.packed_attention import packed_attention
from adapter4rec.models.user_encoders.base import AttentionUserEncoder, causal_padding_mask, xavier_normal


class SelfAttention(nn.Module):
    """Post-norm multi-head self-attention, LN(x + dropout(W_o attention(x))); projections have no bias."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor | Packing | None) -> Tensor:
        """``x [users, L, d]`` and additive ``mask [users, 1, L, L]`` → ``[users, L, d]``.

        With a ``Packing`` as the mask, ``x`` holds concatenated sequences, ``[1, tokens, d]``.
        """
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        dropped = self.dropout.p if self.training else 0.0
        if isinstance(mask, Packing):
            attended = packed_attention((query, key, value), mask, dropout=dropped)
        else:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
        y = self.dropout(self.output(attended.transpose(1, 2).flatten(-2)))
        normed: Tensor = self.layer_norm(x + y)
        return normed


class FeedForward(nn.Module):
    """Post-norm feed-forward, LN(x + dropout(W_2 ReLU(W_1 x + b_1) + b_2)), with hidden width 4d."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """``[users, L, d]`` → ``[users, L, d]``."""
        y = self.dropout(self.down(F.relu(self.up(x))))
        normed: Tensor = self.layer_norm(x + y)
        return normed


class TransformerBlock(nn.Module):
    """Self-attention, then feed-forward, each followed by residual connection and layer norm."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, dropout)

    def forward(self, x: Tensor, mask: Tensor | Packing | None) -> Tensor:
        """See :meth:`SelfAttention.forward`."""
        output: Tensor = self.feed_forward(self.attention(x, mask))
        return output


class TransformerUserEncoder(AttentionUserEncoder):
    """The paper's user encoder.

    Args:
        dim: d, width of the item embeddings.
        max_seq_len: L, number of positions, each with a learned position embedding.
        heads: number of attention heads.
        blocks: number of transformer blocks.
        dropout: probability, after the input norm, on attention weights and on the output of each sublayer.
    """

    layout: ClassVar[EncoderLayout | None] = EncoderLayout(
        layers="blocks",
        attention=SublayerLayout(entry="attention", output="attention.dropout", norm="attention.layer_norm"),
        feed_forward=SublayerLayout(
            entry="feed_forward", output="feed_forward.dropout", norm="feed_forward.layer_norm"
        ),
        query=("attention.query",),
        value=("attention.value",),
        reads=Reads.ITEMS,
    )
    """Sites where adapters attach."""

    def __init__(self, dim: int, max_seq_len: int, heads: int, blocks: int, dropout: float) -> None:
        super().__init__(dim, max_seq_len, heads, blocks, dropout)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, dropout) for _ in range(blocks))
        self.apply(xavier_normal)

    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """See :meth:`UserEncoder.forward`."""
        x: Tensor = self.dropout(self.layer_norm(items + self.position_embedding.weight))
        mask = causal_padding_mask(log_mask, x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return x
