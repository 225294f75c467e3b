"""GRU4Rec: a recurrent user encoder (Hidasi et al., ICLR 2016, arXiv 1511.06939)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adapter4rec.models.dropout import Dropout
from adapter4rec.models.settings import ImageModelSettings, TextModelSettings
from adapter4rec.models.user_encoders.base import UserEncoder


class Gru4RecUserEncoder(UserEncoder):
    """A GRU of hidden width d over item embeddings, and a linear layer on its outputs.

    It has no attention or feed-forward sublayers, so no adapters attach.

    Args:
        dim: d, width of the item embeddings.
        layers: number of layers of the GRU.
        dropout: probability, on the input and between layers.
    """

    def __init__(self, dim: int, layers: int, dropout: float) -> None:
        super().__init__(dim)
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(dim, dim, layers, batch_first=True)
        self.output = nn.Linear(dim, dim)

    @classmethod
    def from_settings(cls, settings: TextModelSettings | ImageModelSettings) -> Gru4RecUserEncoder:
        """A newly initialised user encoder; ``--user_blocks`` is the number of layers."""
        return cls(settings.embedding_dim, settings.user_blocks, settings.dropout)

    @staticmethod
    def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Settings inferred from the shapes of weights; the length of sequences cannot be inferred."""
        layers = [tensor for name, tensor in tensors.items() if name.startswith("gru.weight_hh_l")]
        return {"embedding_dim": layers[0].shape[1], "user_blocks": len(layers)} if layers else {}

    def describe(self) -> str:
        """Kind and sizes in a few words."""
        return f"GRU4Rec, {self.gru.num_layers} layers of width {self.width}"

    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """See :meth:`UserEncoder.forward`.

        Sequences are shifted to the left before the GRU, so that it starts at the first real position.
        """
        length = log_mask.shape[1]
        padded = length - log_mask.sum(1, keepdim=True)
        places = torch.arange(length, device=items.device)
        x = self.dropout(_reordered(items, (places + padded) % length))
        # Not self.gru(x), which ignores the copies of its weights that an adapter trains.
        weights: list[Tensor] = [weight for layer in self.gru.all_weights for weight in layer]
        start = x.new_zeros(self.gru.num_layers, len(x), self.width)
        dropped = self.dropout.p if self.training else 0.0
        states, _ = torch.gru(
            x, start, weights, True, self.gru.num_layers, dropped, self.training, False, True
        )
        vectors: Tensor = self.output(_reordered(states, (places - padded) % length))
        return vectors


def _reordered(x: Tensor, places: Tensor) -> Tensor:
    """``x [users, L, d]`` with the positions of each user in the order ``places [users, L]``."""
    return x.gather(1, places[..., None].expand_as(x))
