"""Training objectives: which places of a sequence predict their next item, and the loss of a prediction."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.batches import Batch
from adapter4rec.models.parts import USER_ENCODER, ParameterGroups


class Loss(nn.Module):
    """Base of training objectives. Parameters of a loss are trained with the user encoder."""

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``user_encoder``."""
        return {USER_ENCODER: dict(self.named_parameters())}

    @staticmethod
    @abstractmethod
    def predicted(log_mask: np.ndarray) -> np.ndarray:
        """Places whose next item is predicted, so that their negatives belong in the batch.

        Args:
            log_mask: bool ``[users, L]``, true on real input places.

        Returns:
            bool ``[users, L]``; the loss is averaged over these places of the global batch.
        """

    @abstractmethod
    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """The loss summed over the predicted places of a batch.

        Args:
            users: next-item vectors ``[users, L, d]``.
            targets: embeddings of the next items ``[users, L, d]``.
            items: embeddings of the batch's distinct items ``[n + 1, d]``; row 0, padding, is zero.
            batch: ids, negatives and mask; its ids are rows of ``items``.

        Returns:
            A scalar.
        """


class SasRecLoss(Loss):
    """Binary cross-entropy with one negative for each target, at every real place (SASRec; SPEC 3)."""

    @staticmethod
    def predicted(log_mask: np.ndarray) -> np.ndarray:
        """Every real place."""
        return log_mask

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        negatives = F.embedding(batch.negatives, items)
        return binary_cross_entropy(users, targets, negatives, batch.log_mask)


class CpcLoss(Loss):
    """The same at the last place alone: the user's history predicts one item (CPC)."""

    @staticmethod
    def predicted(log_mask: np.ndarray) -> np.ndarray:
        """The last place, where it is real."""
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
    """Binary cross-entropy of scores, target 1 for positives and 0 for negatives, summed over a mask.

    Args:
        users: vectors ``[users, places, d]``.
        positives: embeddings ``[users, places, d]``.
        negatives: embeddings ``[users, places, d]``.
        mask: bool ``[users, places]``.

    Returns:
        A scalar.
    """
    positive_scores = (users * positives).sum(-1)
    negative_scores = (users * negatives).sum(-1)
    # -log sigmoid(s) = softplus(-s) and -log(1 - sigmoid(s)) = softplus(s)
    losses = F.softplus(-positive_scores) + F.softplus(negative_scores)
    return (losses * mask).sum()
