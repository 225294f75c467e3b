"""Generalised binary cross-entropy (gSASRec, Petrov & Macdonald 2023, eqs. 12 to 16)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from adapter4rec.data.batches import Batch, Sampling
from adapter4rec.models.losses.base import Loss
from adapter4rec.models.losses.bce import binary_scores


class GbceLoss(Loss):
    """Binary cross-entropy with k negatives, calibrated against overconfidence.

    -(beta log sigmoid(s+) + sum over the negatives of log(1 - sigmoid(s-))) / (k + 1), where
    beta = 1 - t (1 - k / (N - 1)) for the calibration t (``--gbce_t``).
    """

    @property
    def sampling(self) -> Sampling:
        """``--negatives`` per target, by default 64."""
        return Sampling(per_target=self.settings.negatives or 64)

    @property
    def beta(self) -> float:
        """The power of the positive probability, between k / (N - 1) and 1."""
        sampling_rate = self.sampling.per_target / (self.n_items - 1)
        return 1 - self.settings.gbce_t * (1 - sampling_rate)

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        positive_scores, negative_scores = binary_scores(users, targets, items, batch)
        losses = self.beta * F.softplus(-positive_scores) + F.softplus(negative_scores).sum(-1)
        return losses.sum() / (self.sampling.per_target + 1)
