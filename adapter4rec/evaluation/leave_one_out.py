"""Evaluation of one target per user, with a ranking of the whole catalogue (see ``ranking.py``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

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


def rank_users(
    vectors: Callable[[EvalBatch], Tensor],
    catalogue: Embeddings,
    interactions: Interactions,
    split: Split,
    process: Process,
    coverage_at: Iterable[int] = (),
    *,
    exclude_history: bool = True,
) -> Ranking:
    """Rank the target of every user who has one, distributed over the processes.

    Args:
        vectors: returns the next-item vectors, float32 ``[users, d]``, of an evaluation batch.
        catalogue: embeddings of all items.
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
        user_vectors = vectors(batch)
        ranks[some] = rank_targets(user_vectors, catalogue, batch)
        if ks:
            _mark_shown(shown, user_vectors, catalogue, batch, ks)
    counts = process.all_gather(shown[None]).any(0).sum(1)
    return Ranking(
        process.all_gather(ranks[None]).sum(0),
        {k: int(count) for k, count in zip(ks, counts, strict=True)},
        interactions.n_items,
    )


def _mark_shown(
    shown: np.ndarray, vectors: Tensor, catalogue: Embeddings, batch: EvalBatch, ks: tuple[int, ...]
) -> None:
    """Mark the items in the users' top-k lists in ``shown``, bool ``[cutoffs, N + 1]``."""
    for first in range(0, len(vectors), _USERS_LISTED_AT_ONCE):
        last = min(first + _USERS_LISTED_AT_ONCE, len(vectors))
        rows = np.searchsorted(batch.masked_users, np.arange(first, last + 1))
        masked = [batch.masked_items[start:stop] for start, stop in itertools.pairwise(rows)]
        items, scores = best_items(vectors[first:last], catalogue, masked, max(ks))
        for row, k in enumerate(ks):
            shown[row, items[:, :k][np.isfinite(scores[:, :k])]] = True


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

        return rank_users(
            vectors, catalogue, interactions, split, process, coverage_at, exclude_history=exclude
        )


def popularity(
    interactions: Interactions, users: np.ndarray | None = None
) -> tuple[Callable[[EvalBatch], Tensor], Embeddings]:
    """The popularity baseline for :func:`rank_users`: the score of an item is its number of training clicks.

    Returns:
        A function that returns user vectors, and item embeddings. With width 1, their product is the score.
    """
    clicks = interactions.training_clicks(users)
    rows = torch.from_numpy(np.concatenate([[0], clicks]).astype(np.float32))
    return lambda batch: torch.ones(len(batch.targets), 1), Embeddings(rows[:, None])


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
