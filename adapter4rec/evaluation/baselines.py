"""Baselines without a model: the most popular items, and neighbours of the items in the history.

Neighbours are a strong baseline (Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array

from adapter4rec.data.interactions import Interactions
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.leave_one_out import Ranker, by_vectors
from adapter4rec.evaluation.metrics import MISSED
from adapter4rec.evaluation.ranking import EvalBatch

_SCORES_AT_ONCE = 2**24
_DECIMALS = 6
"""To which scores are rounded, so that equal sums tie in whatever order they are computed."""


def popularity(interactions: Interactions, users: np.ndarray | None = None) -> Ranker:
    """The score of an item is its number of training clicks, for every user alike.

    Args:
        interactions: the domain.
        users: indices of the users whose clicks are counted; by default all.
    """
    clicks = interactions.training_clicks(users)
    rows = torch.from_numpy(np.concatenate([[0], clicks]).astype(np.float32))
    return by_vectors(lambda batch: torch.ones(len(batch.targets), 1), Embeddings(rows[:, None]))


def item_knn(interactions: Interactions, users: np.ndarray | None = None) -> Ranker:
    """Item-based nearest neighbours (Sarwar et al., WWW 2001): what users of the same items clicked on.

    The score of item i is the sum of c_ij / sqrt(n_j) over the items j of the history, where c_ij training
    users clicked on both and n_j on j. It is not divided by sqrt(n_i), as in the cosine, which favours rare
    items. A repeated click counts once in c and n. Items of equal scores, such as all for a history without
    neighbours, are ordered by popularity.

    Args:
        interactions: the domain.
        users: indices of the users who are trained on; by default all.
    """
    owners, items = interactions.training_pairs(users)
    shape = interactions.n_users, interactions.n_items
    clicked = csr_array((np.ones(len(items)), (owners, items - 1)), shape=shape)
    clicked.data[:] = 1  # a user who clicked on an item twice counts once
    together = (clicked.T @ clicked).tocsr()
    counts = together.diagonal()
    together.setdiag(0)
    together.data *= np.repeat(1 / np.sqrt(counts.clip(min=1)), np.diff(together.indptr))
    clicks = interactions.training_clicks(users)
    popular = clicks / (1 + clicks.max()) / 10**_DECIMALS

    def scores(inputs: np.ndarray) -> np.ndarray:
        rows, places = inputs.nonzero()
        entries = np.ones(len(rows)), (rows, inputs[rows, places] - 1)
        found = csr_array(entries, shape=(len(inputs), interactions.n_items)) @ together
        found.data.round(_DECIMALS, out=found.data)
        table: np.ndarray = found.toarray()
        table += popular
        return table

    return by_scores(scores, interactions.n_items)


def by_scores(scores: Callable[[np.ndarray], np.ndarray], n_items: int) -> Ranker:
    """Ranks by the scores of all items, for one block of users at a time.

    Args:
        scores: returns float64 ``[users, N]`` from sequences of item ids ``[users, L]``, 0 for padding.
        n_items: N.
    """

    def ranked(batch: EvalBatch, count: int) -> tuple[np.ndarray, np.ndarray]:
        ranks, listed = [], []
        at_once = max(1, _SCORES_AT_ONCE // n_items)
        for first in range(0, len(batch.targets), at_once):
            some = slice(first, first + at_once)
            table, targets = scores(batch.inputs[some]), batch.targets[some, None] - 1
            thresholds = np.take_along_axis(table, targets, axis=1)
            masked = slice(*np.searchsorted(batch.masked_users, [first, first + len(table)]))
            table[batch.masked_users[masked] - first, batch.masked_items[masked] - 1] = -np.inf
            missed = np.take_along_axis(table, targets, axis=1) == -np.inf
            ranks.append(np.where(missed[:, 0], MISSED, (table >= thresholds).sum(axis=1)))
            best = torch.from_numpy(table).topk(min(count, n_items))
            listed.append(torch.where(best.values > -torch.inf, best.indices + 1, 0).numpy())
        return np.concatenate(ranks), np.concatenate(listed)

    return ranked


BASELINES: dict[str, Callable[[Interactions, np.ndarray | None], Ranker]] = {
    "popularity": popularity,
    "item_knn": item_knn,
}
