"""Softmax over the whole catalogue."""

from __future__ import annotations

from torch import Tensor

from adapter4rec.data.batches import Batch, Sampling
from adapter4rec.models.losses.base import Loss
from adapter4rec.models.losses.softmax import softmax_cross_entropy


class FullLoss(Loss):
    """Cross-entropy of the target among all items (without those of the user's own sequence).

    Every step encodes the catalogue, so this is for models whose item embeddings are cheap.
    """

    @property
    def sampling(self) -> Sampling:
        """The whole catalogue."""
        return Sampling(catalogue=True)

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        return softmax_cross_entropy(users, targets, items, batch, temperature=self.settings.temperature)
