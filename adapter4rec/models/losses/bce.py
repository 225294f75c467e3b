"""Binary cross-entropy with sampled negatives (SASRec, Kang & McAuley 2018, eq. 7), the paper's loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from adapter4rec.data.batches import Batch, Sampling
from adapter4rec.models.losses.base import Loss


class BceLoss(Loss):
    """-log sigmoid(s+) - sum over the k negatives of log(1 - sigmoid(s-)) for each target.

    The negatives of a target are uniform over the items that are not in the user's sequence.
    """

    @property
    def sampling(self) -> Sampling:
        """``--negatives`` per target, by default 1."""
        return Sampling(per_target=self.settings.negatives or 1)

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        positive_scores, negative_scores = binary_scores(users, targets, items, batch)
        # -log sigmoid(s) = softplus(-s) and -log(1 - sigmoid(s)) = softplus(s)
        losses = F.softplus(-positive_scores) + F.softplus(negative_scores).sum(-1)
        return losses.sum()


def binary_scores(users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores of the T targets ``[T]`` and of their negatives ``[T, k]``."""
    negatives = F.embedding(batch.negatives, items)
    return (users * targets).sum(-1), (users[:, None] * negatives).sum(-1)
