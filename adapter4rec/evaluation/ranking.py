"""Ranking the whole catalogue for many users, with matrix products of bounded size.

Rank = 1 + the number of other candidates that score at least as high as the target, so ties count against
the target. A target in the masked history counts as a miss. Embeddings and scores are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.metrics import MISSED
from adapter4rec.utils.errors import UserError

_ITEMS_AT_ONCE = 4096
_USERS_AT_ONCE = {"cpu": 512, "cuda": 16384}
"""Chosen such that a block of scores fits the cache of a CPU, or makes full use of a GPU."""


@dataclass(frozen=True)
class EvalBatch:
    """Input sequences, targets and masked items of a batch of users.

    Attributes:
        inputs: item ids ``[users, L]``, 0 for padding.
        targets: item ids ``[users]``.
        masked_users: rows of the pairs (row, item) that are excluded from the candidates, int64 ``[pairs]``.
        masked_items: item ids of these pairs, int64 ``[pairs]``.
    """

    inputs: np.ndarray
    targets: np.ndarray
    masked_users: np.ndarray
    masked_items: np.ndarray


def _by_block(
    users: np.ndarray, items: np.ndarray, users_at_once: int, device: torch.device
) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Index of pairs (user, item): a function of the first user of a block and the first item of a chunk.

    It returns the pairs in this block and chunk, as indices into its scores.
    """
    blocks = int(users.max(initial=0)) // users_at_once + 1
    cells = (items - 1) // _ITEMS_AT_ONCE * blocks + users // users_at_once
    order = np.argsort(cells, kind="stable")
    users, items, cells = users[order], items[order], cells[order]

    def pairs_of(user: int, item: int) -> tuple[Tensor, Tensor]:
        cell = (item - 1) // _ITEMS_AT_ONCE * blocks + user // users_at_once
        pairs = slice(*np.searchsorted(cells, [cell, cell + 1]))
        rows, columns = torch.from_numpy(users[pairs] - user), torch.from_numpy(items[pairs] - item)
        return rows.to(device), columns.to(device)

    return pairs_of


def _chunks(catalogue: Embeddings) -> Iterator[tuple[int, Tensor]]:
    """The first item of each chunk, and the embeddings of its items."""
    for first in range(1, catalogue.n_items + 1, _ITEMS_AT_ONCE):
        yield first, catalogue.rows[first : first + _ITEMS_AT_ONCE]


def rank_targets(users: Tensor, catalogue: Embeddings, question: EvalBatch) -> np.ndarray:
    """Ranks of the targets, int64 ``[users]``; ``MISSED`` if the target itself is masked.

    Computes one dot product and one comparison per user and item, and stores one block of scores at a time.

    Args:
        users: next-item vectors, float32 ``[users, d]``.
        catalogue: embeddings of all items.
        question: the targets and the masked items.

    Raises:
        UserError: scores are not finite.
    """
    at_once = _USERS_AT_ONCE[users.device.type]
    rows = np.arange(len(users))
    # The target is not compared with itself.
    excluded = _by_block(
        np.concatenate([question.masked_users, rows]),
        np.concatenate([question.masked_items, question.targets]),
        at_once,
        users.device,
    )
    thresholds = _target_scores(users, catalogue, question.targets)
    largest = _largest_norm(users)
    better = torch.zeros(len(users), dtype=torch.float64, device=users.device)
    buffer = users.new_empty(at_once, _ITEMS_AT_ONCE)
    for item, embeddings in _chunks(catalogue):
        # |u · v| and all its partial sums are at most |u| |v|, so these scores need no check.
        finite = largest * _largest_norm(embeddings) < torch.finfo(torch.float32).max / 2
        for first in range(0, len(users), at_once):
            some = slice(first, first + at_once)
            scores = _products(users[some], embeddings, buffer)
            if not finite:
                _require_finite(scores)
            scores[excluded(first, item)] = -torch.inf
            # Count scores at least as high, in place. The float32 sum is exact, as a chunk is small.
            better[some] += scores.ge_(thresholds[some, None]).sum(1)
    ranks = better.cpu().numpy().astype(np.int64) + 1
    ranks[question.masked_users[question.masked_items == question.targets[question.masked_users]]] = MISSED
    return ranks


def _products(users: Tensor, items: Tensor, buffer: Tensor) -> Tensor:
    """Scores ``[users, items]`` of a block of users and a chunk of items, by a product of a fixed shape.

    The order of summation depends on the shape, so with varying shapes equal items could get scores that
    differ in the last bit.

    Args:
        users: next-item vectors ``[users, d]``.
        items: embeddings ``[items, d]``.
        buffer: tensor of the fixed shape, which contains the result until the next call overwrites it.
    """
    torch.mm(_padded(users, len(buffer)), _padded(items, buffer.shape[1]).T, out=buffer)
    return buffer[: len(users), : len(items)]


def _padded(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) == count else F.pad(rows, (0, 0, 0, count - len(rows)))


def _target_scores(users: Tensor, catalogue: Embeddings, targets: np.ndarray) -> Tensor:
    """Scores of the users' targets ``[users]``, from the same products as those of other candidates."""
    found = users.new_empty(len(users))
    at_once, by_target = _USERS_AT_ONCE[users.device.type], np.argsort(targets, kind="stable")
    buffer = users.new_empty(at_once, _ITEMS_AT_ONCE)
    for item, embeddings in _chunks(catalogue):
        first, last = np.searchsorted(targets[by_target], [item, item + len(embeddings)])
        for start in range(first, last, at_once):
            numbers = by_target[start : min(start + at_once, last)]
            rows = torch.from_numpy(numbers).to(users.device)
            at = torch.from_numpy(targets[numbers] - item).to(users.device)
            found[rows] = _products(users[rows], embeddings, buffer).gather(1, at[:, None])[:, 0]
    return found


def _largest_norm(vectors: Tensor) -> float:
    return float(vectors.double().norm(dim=1).max()) if len(vectors) else 0.0


def _require_finite(scores: Tensor) -> None:
    if not torch.isfinite(scores).all():
        raise UserError("non-finite scores: the weights of the model contain NaN, inf or very large values")


def best_items(
    users: Tensor, catalogue: Embeddings, excluded: list[np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The top-k items of some users, best first.

    Args:
        users: next-item vectors, float32 ``[users, d]``.
        catalogue: embeddings of all items.
        excluded: for each user, ids of items that are not candidates.
        count: k; limited to the number of items.

    Returns:
        Item ids and scores, both ``[users, count]``; the score of an excluded item is -inf.

    Raises:
        UserError: scores are not finite.
    """
    count = min(count, catalogue.n_items)
    at_once = max(1, len(users))
    rows = np.repeat(np.arange(len(users)), [len(items) for items in excluded])
    items = np.concatenate([*excluded, np.empty(0, np.int64)]).astype(np.int64)
    pairs_of = _by_block(rows, items, at_once, users.device)
    values = users.new_empty(len(users), 0)
    numbers = torch.empty(len(users), 0, dtype=torch.int64, device=users.device)
    buffer = users.new_empty(at_once, _ITEMS_AT_ONCE)
    for item, embeddings in _chunks(catalogue):
        scores = _products(users, embeddings, buffer)
        _require_finite(scores)
        scores[pairs_of(0, item)] = -torch.inf
        found = scores.topk(min(count, scores.shape[1]), dim=1)
        values = torch.cat([values, found.values], dim=1)
        numbers = torch.cat([numbers, found.indices + item], dim=1)
        kept = values.topk(min(count, values.shape[1]), dim=1)
        values, numbers = kept.values, numbers.gather(1, kept.indices)
    return numbers.cpu().numpy(), values.cpu().numpy()
