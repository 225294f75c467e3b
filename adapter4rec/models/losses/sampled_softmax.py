"""Softmax over the target and uniform negatives (sampled softmax, Jean et al., ACL 2015, eq. 8)."""

from __future__ import annotations

from torch import Tensor

from adapter4rec.data.batches import Batch, Sampling
from adapter4rec.models.losses.base import Loss
from adapter4rec.models.losses.softmax import softmax_cross_entropy


class SampledSoftmaxLoss(Loss):
    """Cross-entropy of the target among itself and k uniform negatives that the batch shares.

    The proposal is uniform, so that its correction is the same for all items and cancels.
    """

    @property
    def sampling(self) -> Sampling:
        """``--negatives`` shared by the batch, by default 512 or, if there are fewer, all items."""
        return Sampling(shared=self.settings.negatives or min(512, self.n_items))

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        return softmax_cross_entropy(
            users,
            targets,
            items,
            batch,
            temperature=self.settings.temperature,
            rows=batch.shared,
        )
