"""Ranking a whole catalogue for many users, in matrix products of bounded size.

Rank = 1 + the number of other candidates that score at least as high as the target, so ties count against
it. A target that stands in the masked history is a miss. Embeddings and scores are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.metrics import MISSED
from adapter4rec.utils.errors import UserError

_ITEMS_AT_ONCE = 4096
_USERS_AT_ONCE = {"cpu": 512, "cuda": 16384}
"""A block of scores stays in a CPU's cache, and fills a GPU."""


@dataclass(frozen=True)
class EvalBatch:
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


class _Pairs:
    """Pairs (user, item), found by block of users and stretch of items."""

    def __init__(self, users: np.ndarray, items: np.ndarray, users_at_once: int) -> None:
        self._blocks = -(-(int(users.max(initial=-1)) + 1) // users_at_once)
        cells = (items - 1) // _ITEMS_AT_ONCE * self._blocks + users // users_at_once
        order = np.argsort(cells, kind="stable")
        self._users, self._items, self._cells = users[order], items[order], cells[order]

    def of(self, stretch: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of the pairs of one block and stretch."""
        if block >= self._blocks:
            return self._users[:0], self._items[:0]
        cell = stretch * self._blocks + block
        first, last = np.searchsorted(self._cells, [cell, cell + 1])
        return self._users[first:last], self._items[first:last]


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring items with their embeddings."""

    number: int
    first: int
    embeddings: Tensor


def _stretches(catalogue: Embeddings) -> Iterator[_Stretch]:
    starts = range(1, catalogue.n_items + 1, _ITEMS_AT_ONCE)
    for number, first in enumerate(starts):
        last = min(first + _ITEMS_AT_ONCE, catalogue.n_items + 1)
        yield _Stretch(number, first, catalogue.stretch(first, last))


def rank_targets(users: Tensor, catalogue: Embeddings, question: EvalBatch) -> np.ndarray:
    """Ranks of the targets, int64 ``[users]``; ``MISSED`` where the target itself is masked out.

    The cost is one product and one comparison for each user and item, the memory that of one block of scores.

    Args:
        users: next-item vectors, float32 ``[users, d]``.
        catalogue: embeddings of all items.
        question: the targets and what is masked out.

    Raises:
        UserError: a score is not finite.
    """
    at_once = _USERS_AT_ONCE[users.device.type]
    rows = np.arange(len(users))
    # The target itself is no other candidate.
    excluded = _Pairs(
        np.concatenate([question.masked_users, rows]),
        np.concatenate([question.masked_items, question.targets]),
        at_once,
    )
    thresholds = _target_scores(users, catalogue, question.targets)
    largest = _longest(users)
    better = torch.zeros(len(users), dtype=torch.float64, device=users.device)
    products = _Products(at_once, users)
    for stretch in _stretches(catalogue):
        # No score overflows where |u| |v| does not: |u · v| and all its partial sums are less.
        certain = largest * _longest(stretch.embeddings) < torch.finfo(torch.float32).max / 2
        for block, first in enumerate(range(0, len(users), at_once)):
            some = slice(first, min(first + at_once, len(users)))
            scores = products.of(users[some], stretch.embeddings)
            if not certain:
                _require_finite(scores)
            scores[_at(excluded.of(stretch.number, block), first, stretch)] = -torch.inf
            # 1 where at least as good, in place, and summed in float32: exact, as a stretch is short.
            better[some] += scores.ge_(thresholds[some, None]).sum(1)
    ranks = better.cpu().numpy().astype(np.int64) + 1
    ranks[question.masked_users[question.masked_items == question.targets[question.masked_users]]] = MISSED
    return ranks


class _Products:
    """Scores of a block of users for a stretch of items, always by a product of one shape.

    Matrix products of other shapes sum in other orders, and equal items would differ in the last bit.
    """

    def __init__(self, users_at_once: int, like: Tensor) -> None:
        self._users = like.new_zeros(users_at_once, like.shape[1])
        self._items = like.new_zeros(_ITEMS_AT_ONCE, like.shape[1])
        self._scores = like.new_empty(users_at_once, _ITEMS_AT_ONCE)

    def of(self, users: Tensor, items: Tensor) -> Tensor:
        """``[users, items]``; overwritten by the next call."""
        torch.mm(_filled(self._users, users), _filled(self._items, items).T, out=self._scores)
        return self._scores[: len(users), : len(items)]


def _filled(whole: Tensor, rows: Tensor) -> Tensor:
    """``rows`` themselves where they are as many as ``whole`` has, else a copy with further rows behind."""
    if len(rows) == len(whole):
        return rows
    whole[: len(rows)] = rows
    return whole


def _at(pairs: tuple[np.ndarray, np.ndarray], first_user: int, stretch: _Stretch) -> tuple[Tensor, Tensor]:
    """Where pairs stand in a block of scores."""
    device = stretch.embeddings.device
    users, items = pairs
    return torch.from_numpy(users - first_user).to(device), torch.from_numpy(items - stretch.first).to(device)


def _target_scores(users: Tensor, catalogue: Embeddings, targets: np.ndarray) -> Tensor:
    """The scores of the users' targets ``[users]``, from products like those that they are compared with."""
    found = users.new_empty(len(users))
    at_once, by_target = _USERS_AT_ONCE[users.device.type], np.argsort(targets, kind="stable")
    products = _Products(at_once, users)
    for stretch in _stretches(catalogue):
        ends = stretch.first + np.array([0, len(stretch.embeddings)])
        first, last = np.searchsorted(targets[by_target], ends)
        for start in range(first, last, at_once):
            numbers = by_target[start : min(start + at_once, last)]
            rows = torch.from_numpy(numbers).to(users.device)
            at = torch.from_numpy(targets[numbers] - stretch.first).to(users.device)
            found[rows] = products.of(users[rows], stretch.embeddings).gather(1, at[:, None])[:, 0]
    return found


def _longest(vectors: Tensor) -> float:
    return float(vectors.double().norm(dim=1).max()) if len(vectors) else 0.0


def _require_finite(scores: Tensor) -> None:
    if not torch.isfinite(scores).all():
        raise UserError("a score is not finite: the model's weights are broken; nothing was ranked")


def best_items(
    users: Tensor, catalogue: Embeddings, excluded: list[np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The items that score highest for some users, best first.

    Args:
        users: next-item vectors, float32 ``[users, d]``.
        catalogue: embeddings of all items.
        excluded: for each user, item numbers that are no candidates.
        count: how many; no more than there are items.

    Returns:
        Item numbers and scores, ``[users, count]`` both; the score of what is no candidate is -infinity.

    Raises:
        UserError: a score is not finite.
    """
    count = min(count, catalogue.n_items)
    at_once = max(1, len(users))
    rows = np.repeat(np.arange(len(users)), [len(items) for items in excluded])
    pairs = _Pairs(rows, np.concatenate([*excluded, np.empty(0, np.int64)]).astype(np.int64), at_once)
    products = _Products(at_once, users)
    values = users.new_empty(len(users), 0)
    numbers = torch.empty(len(users), 0, dtype=torch.int64, device=users.device)
    for stretch in _stretches(catalogue):
        scores = products.of(users, stretch.embeddings)
        _require_finite(scores)
        scores[_at(pairs.of(stretch.number, 0), 0, stretch)] = -torch.inf
        found = scores.topk(min(count, scores.shape[1]), dim=1)
        values = torch.cat([values, found.values], dim=1)
        numbers = torch.cat([numbers, found.indices + stretch.first], dim=1)
        kept = values.topk(min(count, values.shape[1]), dim=1)
        values, numbers = kept.values, numbers.gather(1, kept.indices)
    return numbers.cpu().numpy(), values.cpu().numpy()
