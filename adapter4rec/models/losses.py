"""Training objectives: which places of a sequence predict their next item, and the loss of a prediction."""

from __future__ import annotations

from enum import Enum

import torch.nn.functional as F
from torch import Tensor


class Objective(str, Enum):
    """``sasrec``: every real place predicts its next item. ``cpc``: the last place alone does."""

    SASREC = "sasrec"
    CPC = "cpc"

    @property
    def last_place_only(self) -> bool:
        """Whether only the last target of a user counts."""
        return self is Objective.CPC


def summed_loss(
    objective: Objective, users: Tensor, positives: Tensor, negatives: Tensor, log_mask: Tensor
) -> Tensor:
    """Binary cross-entropy of next-item scores, target 1 for positives and 0 for negatives, summed.

    Dividing by the number of targets of the global batch gives the objective's mean.

    Args:
        objective: which places count.
        users: next-item vectors ``[users, L, d]``.
        positives: embeddings of the next items ``[users, L, d]``.
        negatives: embeddings of their negatives ``[users, L, d]``.
        log_mask: bool ``[users, L]``.

    Returns:
        A scalar.
    """
    if objective.last_place_only:
        users, positives, negatives = users[:, -1:], positives[:, -1:], negatives[:, -1:]
        log_mask = log_mask[:, -1:]
    positive_scores = (users * positives).sum(-1)
    negative_scores = (users * negatives).sum(-1)
    # -log sigmoid(s) = softplus(-s) and -log(1 - sigmoid(s)) = softplus(s)
    losses = F.softplus(-positive_scores) + F.softplus(negative_scores)
    return (losses * log_mask).sum()
