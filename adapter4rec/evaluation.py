"""Leave-one-out evaluation: the whole catalogue is ranked for every user.

Rank = 1 + the number of other candidates that score at least as high as the target, so ties count against
it. A target that stands in the masked history is a miss. Embeddings and scores are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from adapter4rec.data.batches import left_padded
from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.interactions import Interactions, Ranges
from adapter4rec.distributed import Process
from adapter4rec.errors import UserError
from adapter4rec.models.transrec import TransRec

MISSED = np.iinfo(np.int32).max
"""The rank of a target that is masked out."""

_ITEMS_AT_ONCE = 512
_SCORES_AT_ONCE = 1 << 24


class Split(str, Enum):
    """Which target is ranked: the last but one click, or the last."""

    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Question:
    """For some users: what they clicked before, what is masked out, and what they clicked next.

    Attributes:
        inputs: item numbers ``[users, L]``, 0 for padding.
        targets: item numbers ``[users]``.
        masked_users: with ``masked_items``, the pairs (row, item) that are no candidates.
        masked_items: see ``masked_users``.
    """

    inputs: np.ndarray
    targets: np.ndarray
    masked_users: np.ndarray
    masked_items: np.ndarray


def questions(interactions: Interactions, split: Split, users: np.ndarray) -> Question:
    """The evaluation inputs of ``users`` (SPEC: data)."""
    ranges = interactions.validation if split is Split.VALIDATION else interactions.test
    starts, stops = interactions.offsets[users], ranges.stop[users] - 1
    lengths = stops - starts
    rows = np.repeat(np.arange(len(users)), lengths)
    at = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
    before = Ranges(ranges.start, ranges.stop - 1)
    return Question(
        inputs=left_padded(interactions.clicks, before, users, interactions.max_seq_len),
        targets=interactions.clicks[stops].astype(np.int64),
        masked_users=rows,
        masked_items=interactions.clicks[at].astype(np.int64),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, and back to the mode that was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def encode_catalogue(
    encode: Callable[[Content], Tensor], store: ContentStore, n_items: int, process: Process
) -> Tensor:
    """Encode all items once, in groups of similar cost that depend on the catalogue alone.

    Args:
        encode: gives ``[n, ...]`` for the content of n items.
        store: the catalogue's content.
        n_items: N.
        process: the groups are dealt out to the processes; each ends with all rows.

    Returns:
        float32 ``[N + 1, ...]`` on the process's device; row 0 (padding) is zero.
    """
    by_cost = np.argsort(store.costs(), kind="stable") + 1
    groups = [by_cost[start : start + _ITEMS_AT_ONCE] for start in range(0, n_items, _ITEMS_AT_ONCE)]
    rows: Tensor | None = None
    for number, items in enumerate(groups):
        if number % process.count == process.rank or rows is None:
            encoded = encode(store.fetch(items).to(process.device)).float()
            if rows is None:
                rows = encoded.new_zeros(n_items + 1, *encoded.shape[1:])
            if number % process.count == process.rank:
                rows[torch.from_numpy(items)] = encoded
    return process.sum_over_all(rows)


def target_ranks(scores: Tensor, question: Question) -> np.ndarray:
    """Ranks of the targets, int64 ``[users]``; ``MISSED`` where the target itself is masked out.

    Args:
        scores: float32 ``[users, N]``, column i - 1 for item i. Overwritten.
        question: the targets and what is masked out.

    Raises:
        UserError: a score is not finite.
    """
    if not torch.isfinite(scores).all():
        raise UserError("a score is not finite: the model's weights are broken; nothing was evaluated")
    device = scores.device
    targets = torch.from_numpy(question.targets).to(device) - 1
    masked = (
        torch.from_numpy(question.masked_users).to(device),
        torch.from_numpy(question.masked_items).to(device) - 1,
    )
    target_scores = scores.gather(1, targets[:, None])
    scores[masked] = -torch.inf
    missed = scores.gather(1, targets[:, None])[:, 0] == -torch.inf
    # The target itself is counted too, which makes the 1 of the definition.
    ranks = (scores >= target_scores).sum(1)
    return torch.where(missed, MISSED, ranks).cpu().numpy()


def rank_users(
    score: Callable[[Question], Tensor], interactions: Interactions, split: Split, process: Process
) -> np.ndarray:
    """Rank every user's target once, whatever the number of processes.

    Args:
        score: gives float32 ``[users, N]`` for a question.
        interactions: the domain.
        split: validation or test.
        process: chunks of users, fixed by the data alone, are dealt out to the processes.

    Returns:
        int64 ``[users]``, on every process.
    """
    at_once = max(1, min(interactions.n_users, _SCORES_AT_ONCE // interactions.n_items))
    chunks = range(0, interactions.n_users, at_once)
    mine = np.zeros(interactions.n_users, np.int64)
    for first in chunks[process.rank :: process.count]:
        users = np.arange(first, min(first + at_once, interactions.n_users))
        question = questions(interactions, split, users)
        mine[users] = target_ranks(score(question), question)
    return process.gathered(mine[None]).sum(0)


def metrics_of(ranks: np.ndarray, k: int = 10) -> dict[str, float]:
    """HR@k and NDCG@k in per cent, means over users.

    Args:
        ranks: int ``[users]``.
        k: length of the list.
    """
    hit = ranks <= k
    gain = np.where(hit, 1 / np.log2(np.where(hit, ranks, 1) + 1.0), 0.0)
    return {f"HR@{k}": 100 * float(hit.mean()), f"NDCG@{k}": 100 * float(gain.mean())}


def next_item_scores(model: TransRec, items: Tensor, inputs: np.ndarray) -> Tensor:
    """Score every item as the next click of some users.

    Args:
        model: in eval mode.
        items: embeddings ``[N + 1, d]``, row 0 zero (see :func:`encode_catalogue`).
        inputs: item numbers ``[users, L]``, 0 for padding.

    Returns:
        float32 ``[users, N]``, column i - 1 for item i.
    """
    clicks = torch.from_numpy(inputs).to(items.device)
    return model.encode_users(items[clicks], clicks > 0)[:, -1] @ items[1:].T


def evaluate(
    model: TransRec, store: ContentStore, interactions: Interactions, split: Split, process: Process
) -> dict[str, float]:
    """HR@10 and NDCG@10 of a model, in per cent, in eval mode and float32."""
    with evaluating(model):
        items = encode_catalogue(model.encode_items, store, interactions.n_items, process)

        def score(question: Question) -> Tensor:
            return next_item_scores(model, items, question.inputs)

        return metrics_of(rank_users(score, interactions, split, process))


def popularity_scores(interactions: Interactions) -> np.ndarray:
    """Clicks on each item in the users' training sequences, float32 ``[N]``."""
    train = interactions.train
    is_train = np.ones(len(interactions.clicks), bool)
    is_train[train.stop] = is_train[train.stop + 1] = False
    counts = np.bincount(interactions.clicks[is_train], minlength=interactions.n_items + 1)
    return counts[1:].astype(np.float32)


def evaluate_popularity(interactions: Interactions, split: Split, process: Process) -> dict[str, float]:
    """The baseline that ranks items by their clicks, the same for every user."""
    popularity = torch.from_numpy(popularity_scores(interactions))
    return metrics_of(
        rank_users(lambda question: popularity.repeat(len(question.targets), 1), interactions, split, process)
    )
