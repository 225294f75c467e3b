"""In-batch softmax with additional uniform negatives (mixed negative sampling, Yang et al., WWW 2020)."""

from __future__ import annotations

from adapter4rec.data.batches import Sampling
from adapter4rec.models.losses.in_batch import InBatchLoss


class MixedLoss(InBatchLoss):
    """:class:`InBatchLoss` with k uniform negatives that the batch shares.

    Items of the long tail, which are rarely in a batch, are negatives, too. The logQ correction uses the
    expected number of draws from both sources.
    """

    @property
    def sampling(self) -> Sampling:
        """``--negatives`` shared by the batch, by default 512 or, if there are fewer, all items."""
        return Sampling(in_batch=True, shared=self.settings.negatives or min(512, self.n_items))
