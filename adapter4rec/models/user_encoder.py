"""The user encoder: a causal transformer over a user's item embeddings (SASRec, Kang & McAuley 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.packing import Packing
from adapter4rec.models.dropout import Dropout
from adapter4rec.models.layouts import EncoderLayout, Reads, SublayerLayout
from adapter4rec.models.packed_attention import packed_attention
from adapter4rec.models.parts import USER_ENCODER, ParameterGroups
from adapter4rec.models.settings import ImageModelSettings, TextModelSettings
from adapter4rec.utils.errors import UserError

_MASKED_SCORE = -1e9
"""Added to the attention scores of masked keys. Finite, so that the softmax at a padding position, where all
keys are masked, is uniform instead of NaN."""


def causal_padding_mask(log_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive attention mask that combines the causal mask and the padding mask.

    Args:
        log_mask: bool ``[users, L]``, false at padding.
        dtype: of the attention scores.

    Returns:
        ``[users, 1, L, L]``: 0 where query i may attend to key j, a large negative number elsewhere.
    """
    length = log_mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=log_mask.device).tril()
    allowed = causal & log_mask[:, None, None, :]
    masked = max(_MASKED_SCORE, torch.finfo(dtype).min)
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, masked)


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


class UserEncoder(nn.Module):
    """Maps left-padded sequences of item embeddings to next-item vectors.

    Args:
        dim: d, width of the item embeddings.
        max_seq_len: L, number of positions, each with a learned position embedding.
        heads: number of attention heads.
        blocks: number of transformer blocks.
        dropout: probability, after the input norm, on attention weights and on the output of each sublayer.
    """

    layout: ClassVar[EncoderLayout] = EncoderLayout(
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
        super().__init__()
        self.width, self.heads = dim, heads
        self.position_embedding = nn.Embedding(max_seq_len, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, dropout) for _ in range(blocks))
        self.apply(_xavier_normal)

    @classmethod
    def from_settings(cls, settings: TextModelSettings | ImageModelSettings) -> UserEncoder:
        """A newly initialised user encoder.

        Raises:
            UserError: the embedding dimension is not divisible by the number of heads.
        """
        if settings.embedding_dim % settings.user_heads:
            raise UserError(
                f"--user_heads {settings.user_heads}: must divide --embedding_dim {settings.embedding_dim}"
            )
        heads, blocks = settings.user_heads, settings.user_blocks
        return cls(settings.embedding_dim, settings.max_seq_len, heads, blocks, settings.dropout)

    @staticmethod
    def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Settings inferred from the shapes of weights; the number of heads cannot be inferred."""
        positions = tensors.get("position_embedding.weight")
        if positions is None:
            return {}
        blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
        max_seq_len, width = positions.shape
        return {"max_seq_len": max_seq_len, "embedding_dim": width, "user_blocks": len(blocks)}

    def describe(self) -> str:
        """A short description of the architecture."""
        return f"{len(self.blocks)} blocks of width {self.width}, {self.heads} heads"

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``user_encoder``."""
        return {USER_ENCODER: dict(self.named_parameters())}

    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """Next-item vectors at each position.

        Args:
            items: item embeddings ``[users, L, d]``; values at padding do not affect other positions.
            log_mask: bool ``[users, L]``, false at padding.

        Returns:
            ``[users, L, d]``; vectors at padding are undefined.
        """
        x: Tensor = self.dropout(self.layer_norm(items + self.position_embedding.weight))
        mask = causal_padding_mask(log_mask, x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return x


def _xavier_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.xavier_normal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
