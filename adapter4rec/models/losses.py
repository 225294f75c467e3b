"""Training objectives: which positions of a sequence are predicted, and the loss of the predictions."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.batches import Batch
from adapter4rec.models.parts import USER_ENCODER, ParameterGroups


class Loss(nn.Module):
    """Base class of training objectives. Parameters of a loss belong to the user encoder's group."""

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``user_encoder``."""
        return {USER_ENCODER: dict(self.named_parameters())}

    @staticmethod
    @abstractmethod
    def predicted(log_mask: np.ndarray) -> np.ndarray:
        """Positions whose next item is predicted; the batch contains negatives for these.

        Args:
            log_mask: bool ``[users, L]``, false at padding.

        Returns:
            bool ``[users, L]``. The loss is averaged over these positions of the global batch.
        """

    @abstractmethod
    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """The loss summed over the predicted positions of a batch.

        Args:
            users: next-item vectors ``[users, L, d]``.
            targets: embeddings of the next items ``[users, L, d]``.
            items: embeddings of the distinct items in the batch ``[n + 1, d]``; row 0 (padding) is zero.
            batch: positives, negatives and mask; its ids index the rows of ``items``.

        Returns:
            A scalar.
        """


class SasRecLoss(Loss):
    """Binary cross-entropy with one negative per target, at every position (SASRec, Kang & McAuley 2018)."""

    @staticmethod
    def predicted(log_mask: np.ndarray) -> np.ndarray:
        """Every position that is not padding."""
        return log_mask

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        negatives = F.embedding(batch.negatives, items)
        return binary_cross_entropy(users, targets, negatives, batch.log_mask)


class CpcLoss(Loss):
    """The same loss at the last position only: the whole history predicts one item (CPC)."""

    @staticmethod
    def predicted(log_mask: np.ndarray) -> np.ndarray:
        """The last position, unless it is padding."""
        last = np.zeros_like(log_mask)
        last[:, -1] = log_mask[:, -1]
        return last

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        negatives = F.embedding(batch.negatives, items)
        last = slice(-1, None)
        return binary_cross_entropy(
            users[:, last], targets[:, last], negatives[:, last], batch.log_mask[:, last]
        )


def binary_cross_entropy(users: Tensor, positives: Tensor, negatives: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of dot-product scores, summed over the positions in ``mask``.

    -log sigmoid(u · p) - log(1 - sigmoid(u · n)) for user vector u, positive p and negative n.

    Args:
        users: vectors ``[users, positions, d]``.
        positives: embeddings ``[users, positions, d]``.
        negatives: embeddings ``[users, positions, d]``.
        mask: bool ``[users, positions]``.

    Returns:
        A scalar.
    """
    positive_scores = (users * positives).sum(-1)
    negative_scores = (users * negatives).sum(-1)
    # -log sigmoid(s) = softplus(-s) and -log(1 - sigmoid(s)) = softplus(s)
    losses = F.softplus(-positive_scores) + F.softplus(negative_scores)
    return (losses * mask).sum()
