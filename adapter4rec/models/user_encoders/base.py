"""What all user encoders share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from adapter4rec.models.layouts import EncoderLayout
from adapter4rec.models.parts import USER_ENCODER, ParameterGroups
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from adapter4rec.models.settings import ImageModelSettings, TextModelSettings

E = TypeVar("E", bound="UserEncoder")
A = TypeVar("A", bound="AttentionUserEncoder")

_MASKED_SCORE = -1e9
"""Added to the attention scores of masked keys. Finite, so that the softmax at a padding position, where all
keys are masked, is uniform instead of NaN."""


class UserEncoder(nn.Module, ABC):
    """Maps left-padded sequences of item embeddings to next-item vectors.

    Args:
        dim: d, width of the item embeddings and of the next-item vectors.
    """

    layout: ClassVar[EncoderLayout | None] = None
    """Sites where adapters attach; None for an encoder without attention or feed-forward sublayers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    @classmethod
    @abstractmethod
    def from_settings(cls: type[E], settings: TextModelSettings | ImageModelSettings) -> E:
        """A newly initialised user encoder.

        Raises:
            UserError: the settings do not fit each other.
        """

    @staticmethod
    @abstractmethod
    def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Settings inferred from the shapes of weights."""

    @abstractmethod
    def describe(self) -> str:
        """Kind and sizes in a few words."""

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``user_encoder``."""
        return {USER_ENCODER: dict(self.named_parameters())}

    @abstractmethod
    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """Next-item vectors at each position.

        Args:
            items: item embeddings ``[users, L, d]``; values at padding do not affect other positions.
            log_mask: bool ``[users, L]``, false at padding.

        Returns:
            ``[users, L, d]``; each vector depends on positions up to its own; at padding it is undefined.
        """


class AttentionUserEncoder(UserEncoder):
    """A user encoder with learned position embeddings, and blocks that attend to earlier positions.

    Args:
        dim: d, width of the item embeddings.
        max_seq_len: L, number of positions, each with a learned position embedding.
        heads: number of attention heads.
        blocks: number of blocks.
        dropout: probability of dropout.
    """

    def __init__(self, dim: int, max_seq_len: int, heads: int, blocks: int, dropout: float) -> None:
        super().__init__(dim)
        self.heads = heads
        self.position_embedding = nn.Embedding(max_seq_len, dim)
        self.blocks: nn.ModuleList

    @classmethod
    def from_settings(cls: type[A], settings: TextModelSettings | ImageModelSettings) -> A:
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
        """Kind and sizes in a few words."""
        return f"{len(self.blocks)} blocks of width {self.width}, {self.heads} heads"


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


def xavier_normal(module: nn.Module) -> None:
    """Initialise a linear layer or an embedding table: Xavier-normal weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.xavier_normal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
