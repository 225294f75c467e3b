"""Cross-entropy of a softmax over a set of candidate items, which the softmax losses share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adapter4rec.data.batches import Batch

_SCORES_AT_ONCE = 2**24
"""Scores in a block (64 MiB); with more, a block is recomputed in the backward pass."""
_MASKED_SCORE = -1e30
"""Finite, so that the gradient is zero instead of NaN where all candidates are masked."""


def softmax_cross_entropy(
    users: Tensor,
    targets: Tensor,
    items: Tensor,
    batch: Batch,
    *,
    temperature: float,
    rows: Tensor | None = None,
    logq: Tensor | None = None,
    target_logq: Tensor | None = None,
) -> Tensor:
    """-log of the softmax probability of each target among itself and the candidates, summed.

    With s = u · v / temperature - logq, the loss of a target t is log(e^s_t + sum over the candidates of
    e^s_c) - s_t. Candidates in the user's own sequence are left out.

    Args:
        users: next-item vectors ``[users, P, d]``.
        targets: embeddings of the next items ``[users, P, d]``.
        items: embeddings of the batch's items ``[n + 1, d]``; row 0 is padding.
        batch: the batch.
        temperature: divides the scores.
        rows: int64 ``[C]``, the candidates as rows of ``items``; by default all but padding.
        logq: ``[C]``, subtracted from the scores of the candidates; by default 0.
        target_logq: ``[users, P]``, subtracted from the scores of the targets; by default 0.

    Returns:
        A scalar, the sum over the targets of this process.
    """
    candidates = items[1:] if rows is None else F.embedding(rows, items)
    columns = slice(1, None) if rows is None else rows
    if logq is None:
        logq = items.new_zeros(len(candidates))
    if target_logq is None:
        target_logq = users.new_zeros(users.shape[:2])

    def block(
        users: Tensor, targets: Tensor, target_logq: Tensor, sequences: Tensor, predicted: Tensor
    ) -> Tensor:
        scores = users @ candidates.T / temperature - logq
        in_sequence = torch.zeros(len(users), batch.n_rows, dtype=torch.bool, device=users.device)
        in_sequence.scatter_(1, sequences, True)
        scores = scores.masked_fill(in_sequence[:, None, columns], _MASKED_SCORE)
        target_scores = (users * targets).sum(-1) / temperature - target_logq
        # log(e^t + e^c) - t = softplus(c - t)
        losses = F.softplus(scores.logsumexp(-1) - target_scores)
        return (losses * predicted).sum()

    inputs = (users, targets, target_logq, batch.positives, batch.predicted)
    at_once = max(1, _SCORES_AT_ONCE // (users.shape[1] * len(candidates)))
    if at_once >= len(users):
        return block(*inputs)
    blocks = zip(*(torch.split(tensor, at_once) for tensor in inputs), strict=True)
    return torch.stack([checkpoint(block, *some, use_reentrant=False) for some in blocks]).sum()
