"""Cross-entropy of a softmax over a set of candidate items, which the softmax losses share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adapter4rec.data.batches import Batch

_SCORES_AT_ONCE = 2**24
"""Scores in a block (64 MiB); with more, each block is recomputed in the backward pass."""
_SCORES_AT_ONCE_CPU = 2**21
"""Less on a CPU, where memory for larger blocks is taken from the system and cleared in every step."""
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
        users: next-item vectors ``[T, d]``, one for each target.
        targets: embeddings of the T targets ``[T, d]``.
        items: embeddings of the batch's items ``[n + 1, d]``; row 0 is padding.
        batch: the batch.
        temperature: divides the scores.
        rows: int64 ``[C]``, the candidates as rows of ``items``; by default all but padding.
        logq: ``[C]``, subtracted from the scores of the candidates; by default 0.
        target_logq: ``[T]``, subtracted from the scores of the targets; by default 0.

    Returns:
        A scalar, the sum over the targets of this process.
    """
    candidates = items[1:] if rows is None else F.embedding(rows, items)
    columns = slice(1, None) if rows is None else rows
    if logq is None:
        logq = items.new_zeros(len(candidates))
    if target_logq is None:
        target_logq = users.new_zeros(len(users))
    in_sequence = torch.zeros(len(batch.positives), batch.n_rows, dtype=torch.bool, device=users.device)
    in_sequence = in_sequence.scatter_(1, batch.positives, True)[:, columns]

    def block(users: Tensor, targets: Tensor, target_logq: Tensor, owners: Tensor) -> Tensor:
        scores = users @ candidates.T / temperature - logq
        scores = scores.masked_fill(in_sequence[owners], _MASKED_SCORE)
        target_scores = (users * targets).sum(-1) / temperature - target_logq
        # log(e^t + e^c) - t = softplus(c - t)
        return F.softplus(scores.logsumexp(-1) - target_scores).sum()

    inputs = (users, targets, target_logq, batch.users)
    most = _SCORES_AT_ONCE_CPU if users.device.type == "cpu" else _SCORES_AT_ONCE
    at_once = max(1, most // len(candidates))
    if at_once >= len(users):
        return block(*inputs)
    blocks = zip(*(torch.split(tensor, at_once) for tensor in inputs), strict=True)
    # Nothing in a block is random.
    kept = [checkpoint(block, *some, use_reentrant=False, preserve_rng_state=False) for some in blocks]
    return torch.stack(kept).sum()
