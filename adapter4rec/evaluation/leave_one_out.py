"""Evaluation of one target per user, with a ranking of the whole catalogue (see ``ranking.py``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.domain import Domain
from adapter4rec.data.interactions import Interactions
from adapter4rec.evaluation.catalogue import Embeddings, encode_catalogue, evaluating
from adapter4rec.evaluation.metrics import RankedUsers, metrics_of
from adapter4rec.evaluation.ranking import EvalBatch, best_items, rank_targets
from adapter4rec.evaluation.settings import RankingSettings
from adapter4rec.utils.process_group import Process

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec

USERS_AT_ONCE = 8192
_USERS_ENCODED_AT_ONCE = 1024
_USERS_LISTED_AT_ONCE = 1024

Ranker: TypeAlias = Callable[[EvalBatch, int], tuple[np.ndarray, np.ndarray]]
"""Returns the ranks of the targets of a batch, int64 ``[users]``, and the ids of the top k items, int64
``[users, min(k, N)]``, 0 where there is no further candidate."""


class Split(str, Enum):
    """The target to rank; with leave-one-out, the second to last click or the last one."""

    VALIDATION = "validation"
    TEST = "test"


def eval_batch(
    interactions: Interactions, split: Split, users: np.ndarray, *, exclude_history: bool = True
) -> EvalBatch:
    """The evaluation batch of ``users``: the last L clicks before the target, all earlier clicks masked.

    Args:
        interactions: the domain.
        split: validation or test.
        users: indices of users with a target in this split, int ``[users]``.
        exclude_history: whether the clicks before the target are masked.
    """
    starts, stops = interactions.offsets[users], interactions.split.stops(split.value)[users]
    lengths = stops - starts if exclude_history else np.zeros_like(starts)
    rows = np.repeat(np.arange(len(users)), lengths)
    at = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
    return EvalBatch(
        inputs=interactions.padded(users, stops, interactions.max_seq_len),
        targets=interactions.clicks[stops].astype(np.int64),
        masked_users=rows,
        masked_items=interactions.clicks[at].astype(np.int64),
    )


@dataclass(frozen=True)
class Ranking:
    """The result of ranking the catalogue for every user with a target.

    Attributes:
        ranks: ranks of the targets, int64 ``[users]``, in the order of ``interactions.split.ranked``.
        shown: for each k, the number of items in the top k of at least one user; empty if not requested.
        n_items: N.
    """

    ranks: np.ndarray
    shown: dict[int, int]
    n_items: int

    def metrics(self, ks: Iterable[int] = (10,)) -> dict[str, float]:
        """HR@k, NDCG@k, MRR, and coverage@k if requested, in per cent."""
        coverage = {f"coverage@{k}": 100 * count / self.n_items for k, count in self.shown.items()}
        return metrics_of(self.ranks, ks) | coverage


def by_vectors(vectors: Callable[[EvalBatch], Tensor], catalogue: Embeddings) -> Ranker:
    """Ranks by products of next-item vectors and item embeddings.

    Args:
        vectors: returns the next-item vectors, float32 ``[users, d]``, of an evaluation batch.
        catalogue: embeddings of all items.
    """

    def ranked(batch: EvalBatch, count: int) -> tuple[np.ndarray, np.ndarray]:
        users = vectors(batch)
        listed = np.zeros((len(users), min(count, catalogue.n_items)), np.int64)
        for first in range(0, len(users) if count else 0, _USERS_LISTED_AT_ONCE):
            last = min(first + _USERS_LISTED_AT_ONCE, len(users))
            rows = np.searchsorted(batch.masked_users, np.arange(first, last + 1))
            masked = [batch.masked_items[start:stop] for start, stop in itertools.pairwise(rows)]
            items, scores = best_items(users[first:last], catalogue, masked, count)
            listed[first:last] = np.where(np.isfinite(scores), items, 0)
        return rank_targets(users, catalogue, batch), listed

    return ranked


def rank_users(
    ranker: Ranker,
    interactions: Interactions,
    split: Split,
    process: Process,
    coverage_at: Iterable[int] = (),
    *,
    exclude_history: bool = True,
) -> Ranking:
    """Rank the target of every user who has one, distributed over the processes.

    Args:
        ranker: ranks the items for a batch of users.
        interactions: the domain.
        split: validation or test.
        process: this process. Batches of users do not depend on the number of processes.
        coverage_at: cutoffs k of coverage.
        exclude_history: whether items of the history are left out of the candidates.

    Returns:
        The same result on every process.
    """
    ks = tuple(coverage_at)
    ranked = interactions.split.ranked(split.value)
    ranks = np.zeros(len(ranked), np.int64)
    shown = np.zeros((len(ks), interactions.n_items + 1), bool)
    for number in process.distribute(-(-len(ranked) // USERS_AT_ONCE)):
        some = slice(number * USERS_AT_ONCE, (number + 1) * USERS_AT_ONCE)
        batch = eval_batch(interactions, split, ranked[some], exclude_history=exclude_history)
        ranks[some], listed = ranker(batch, max(ks, default=0))
        for row, k in enumerate(ks):
            shown[row, listed[:, :k]] = True
    counts = process.all_gather(shown[None])[:, :, 1:].any(0).sum(1)
    return Ranking(
        process.all_gather(ranks[None]).sum(0),
        {k: int(count) for k, count in zip(ks, counts, strict=True)},
        interactions.n_items,
    )


def next_item_vectors(model: TransRec, catalogue: Embeddings, inputs: np.ndarray) -> Tensor:
    """Next-item vectors at the last position of each sequence.

    Args:
        model: in eval mode.
        catalogue: embeddings of all items.
        inputs: item ids ``[users, L]``, 0 for padding.

    Returns:
        float32 ``[users, d]``.
    """
    parts = []
    for some in np.array_split(inputs, max(1, len(inputs) // _USERS_ENCODED_AT_ONCE)):
        items = catalogue.of(some)
        log_mask = torch.from_numpy(some > 0).to(items.device)
        parts.append(model.encode_users(items, log_mask)[:, -1])
    return torch.cat(parts)


def rank(
    model: TransRec,
    domain: Domain,
    split: Split,
    process: Process,
    settings: RankingSettings,
    coverage_at: Iterable[int] = (),
) -> Ranking:
    """Rank the catalogue for every user of a domain. User vectors and scores are float32.

    Args:
        model: evaluated in eval mode; its mode is restored afterwards.
        domain: users and items.
        split: validation or test.
        process: this process.
        settings: how the catalogue is encoded, and which items are candidates.
        coverage_at: cutoffs k of coverage.

    Raises:
        UserError: scores are not finite.
    """
    interactions, exclude = domain.interactions, settings.exclude_history
    with evaluating(model):
        catalogue = encode_catalogue(model, domain.store, interactions.n_items, process, settings)

        def vectors(batch: EvalBatch) -> Tensor:
            return next_item_vectors(model, catalogue, batch.inputs)

        ranker = by_vectors(vectors, catalogue)
        return rank_users(ranker, interactions, split, process, coverage_at, exclude_history=exclude)


def ranked_users(
    interactions: Interactions, ranks: np.ndarray, trained_on: np.ndarray | None = None
) -> RankedUsers:
    """Per-user results of a test.

    Args:
        interactions: the domain.
        ranks: ranks of the users with a test target, int64 ``[users]``.
        trained_on: indices of the trained users; by default all.
    """
    tested = interactions.split.ranked(Split.TEST.value)
    stops = interactions.split.test_stops[tested]
    targets = interactions.clicks[stops]
    return RankedUsers(
        users=[interactions.user_names[user] for user in tested],
        history=np.minimum(stops - interactions.offsets[tested], interactions.max_seq_len),
        targets=[interactions.item_names[target - 1] for target in targets],
        target_clicks=interactions.training_clicks(trained_on)[targets - 1],
        ranks=ranks,
    )
