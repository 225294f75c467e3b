"""Softmax over the items of the batch, with logQ correction (Yi et al., RecSys 2019, eqs. 2 to 5)."""

from __future__ import annotations

from torch import Tensor

from adapter4rec.data.batches import Batch, Sampling
from adapter4rec.models.losses.base import Loss
from adapter4rec.models.losses.softmax import softmax_cross_entropy


class InBatchLoss(Loss):
    """Cross-entropy of the target among the distinct items of the global batch.

    Popular items are in a batch more often. The logQ correction subtracts log q from the scores, where q is
    the expected number of times that an item is drawn into a batch. ``--logq standard`` corrects targets and
    negatives. ``--logq corrected`` leaves the targets uncorrected, since a target is always among the
    candidates and not drawn (Khrylchenko et al., RecSys 2025, arXiv 2507.09331, whose weighted loss has the
    gradient of this one).
    """

    @property
    def sampling(self) -> Sampling:
        """No sampled negatives; all items of the sequences are candidates."""
        return Sampling(in_batch=True)

    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Loss.forward`."""
        logq = batch.expected.log()
        return softmax_cross_entropy(
            users,
            targets,
            items,
            batch,
            temperature=self.settings.temperature,
            logq=None if self.settings.logq == "none" else logq,
            target_logq=logq[batch.next_rows - 1] if self.settings.logq == "standard" else None,
        )
