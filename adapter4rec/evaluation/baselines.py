"""Baselines without a model: the most popular items, and neighbours of the items in the history.

Neighbours are a strong baseline (Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array

from adapter4rec.data.interactions import Interactions
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.leave_one_out import Ranker, by_vectors
from adapter4rec.evaluation.metrics import MISSED
from adapter4rec.evaluation.ranking import EvalBatch

_USERS_AT_ONCE = 256
_TIE = 1e-9
"""Weight of popularity among neighbours: it orders items of equal scores only."""


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
    items. Items of equal scores, such as all for a history without neighbours, are ordered by popularity.

    Args:
        interactions: the domain.
        users: indices of the users who are trained on; by default all.
    """
    owners, items = interactions.training_pairs(users)
    shape = interactions.n_users, interactions.n_items
    clicked = csr_array((np.ones(len(items)), (owners, items - 1)), shape=shape)
    clicked.data[:] = 1  # a user who clicked on an item twice counts once
    together = clicked.T @ clicked
    counts = together.diagonal()
    together.setdiag(0)
    weights = diags_array(1 / np.sqrt(counts.clip(min=1))) @ together
    popular = _TIE * interactions.training_clicks(users)

    def scores(inputs: np.ndarray) -> np.ndarray:
        rows, places = inputs.nonzero()
        clicks = np.ones(len(rows)), (rows, inputs[rows, places] - 1)
        history = csr_array(clicks, shape=(len(inputs), interactions.n_items))
        table: np.ndarray = (history @ weights).toarray() + popular
        return table

    return by_scores(scores)


def by_scores(scores: Callable[[np.ndarray], np.ndarray]) -> Ranker:
    """Ranks by the scores of all items, for one block of users at a time.

    Args:
        scores: returns float64 ``[users, N]`` from sequences of item ids ``[users, L]``, 0 for padding.
    """

    def ranked(batch: EvalBatch, count: int) -> tuple[np.ndarray, np.ndarray]:
        ranks, listed = [], []
        for first in range(0, len(batch.targets), _USERS_AT_ONCE):
            some = slice(first, first + _USERS_AT_ONCE)
            table, targets = scores(batch.inputs[some]), batch.targets[some, None] - 1
            thresholds = np.take_along_axis(table, targets, axis=1)
            masked = slice(*np.searchsorted(batch.masked_users, [first, first + len(table)]))
            table[batch.masked_users[masked] - first, batch.masked_items[masked] - 1] = -np.inf
            missed = np.take_along_axis(table, targets, axis=1) == -np.inf
            ranks.append(np.where(missed[:, 0], MISSED, (table >= thresholds).sum(axis=1)))
            best = torch.from_numpy(table).topk(min(count, table.shape[1]))
            listed.append(torch.where(best.values > -torch.inf, best.indices + 1, 0).numpy())
        return np.concatenate(ranks), np.concatenate(listed)

    return ranked


BASELINES: dict[str, Callable[[Interactions, np.ndarray | None], Ranker]] = {
    "popularity": popularity,
    "item_knn": item_knn,
}
