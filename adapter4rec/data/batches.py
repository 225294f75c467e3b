"""Training batches: ids, negatives and masks from (seed, epoch, step) alone, then the items' content.

A batch begins as ids for the whole global batch, so that every process knows how many real places it has;
each process then keeps its share of the users, finds their distinct items and fetches those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.interactions import Interactions, Ranges
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

_SHUFFLE, _NEGATIVES = 0, 1
_SHARE = 3  # 2 is dropout's (training/fit.py)


@dataclass(frozen=True)
class Batch(Content):
    """One process's share of a training step (or of one of its accumulation parts).

    Attributes:
        content: content of the distinct real items of this share.
        positives: int64 ``[users, L + 1]``, places in ``content`` counted from 1; 0 is padding.
        negatives: int64 ``[users, L]``, the same for the negative of target ``positives[:, i + 1]``.
        log_mask: bool ``[users, L]``, true on real input places.
        targets_in_step: how many targets the objective averages over, in the whole global batch.
    """

    content: Content
    positives: Tensor
    negatives: Tensor
    log_mask: Tensor
    targets_in_step: int


@dataclass(frozen=True)
class IdBatch:
    """The ids of some users: item numbers, 0 for padding. Shapes as in :class:`Batch`."""

    positives: np.ndarray
    negatives: np.ndarray

    @property
    def log_mask(self) -> np.ndarray:
        """True on real input places."""
        return self.positives[:, :-1] > 0

    def share(self, part: int, parts: int) -> IdBatch:
        """The users of one of ``parts`` near-equal shares; where there are none, one user, all padding."""
        mine = np.array_split(np.arange(len(self.positives)), parts)[part]
        if len(mine):
            return IdBatch(self.positives[mine], self.negatives[mine])
        return IdBatch(np.zeros_like(self.positives[:1]), np.zeros_like(self.negatives[:1]))


def left_padded(clicks: np.ndarray, ranges: Ranges, users: np.ndarray, width: int) -> np.ndarray:
    """The last ``width`` clicks of each user's range, int64 ``[users, width]``, 0 on the left."""
    at = ranges.stop[users, None] - width + np.arange(width)
    real = at >= ranges.start[users, None]
    return np.where(real, clicks[np.maximum(at, 0)], 0).astype(np.int64)


def draw_negatives(positives: np.ndarray, n_items: int, generator: np.random.Generator) -> np.ndarray:
    """One negative for each target, uniform over 1…N without the items of its user's sequence.

    Args:
        positives: int64 ``[users, L + 1]``, 0 for padding.
        n_items: N.
        generator: the only source of chance.

    Returns:
        int64 ``[users, L]``; 0 where the input place is padding.
    """
    shape = (len(positives), positives.shape[1] - 1)
    negatives = generator.integers(1, n_items + 1, shape)
    users, places = np.nonzero(positives[:, :-1] > 0)
    while len(users):
        drawn = negatives[users, places]
        clash = (positives[users] == drawn[:, None]).any(axis=1)
        users, places = users[clash], places[clash]
        negatives[users, places] = generator.integers(1, n_items + 1, len(users))
    negatives[positives[:, :-1] == 0] = 0
    return negatives


def share_of_users(n_users: int, share: float, seed: int) -> np.ndarray:
    """Numbers of the users that are trained on, ascending. Larger shares hold the smaller ones of a seed.

    Args:
        n_users: of the domain.
        share: of the users, above 0; at least one is taken.
        seed: draws them.
    """
    count = max(1, round(share * n_users))
    return np.sort(np.random.default_rng([seed, _SHARE]).permutation(n_users)[:count])


class TrainingSet(Dataset):
    """The training examples of a domain, one for each user and epoch, as one process sees them.

    ``examples[epoch, step]`` is this process's share of a global batch: a list of accumulation parts.

    Args:
        interactions: the domain.
        store: content of its items.
        batch_size: users in a global batch.
        seed: of the shuffles and the negatives.
        predicted: which places the training objective predicts (see ``Loss.predicted``); the negatives of the
            other places are not even encoded.
        users: numbers of the users that are trained on; default: all.
        process: this process; default: the only one.
        accumulation_steps: parts in which a process computes its share.

    Raises:
        UserError: a user's training sequence covers all items, so that no negative can be drawn.
    """

    def __init__(
        self,
        interactions: Interactions,
        store: ContentStore,
        *,
        batch_size: int,
        seed: int,
        predicted: Callable[[np.ndarray], np.ndarray],
        users: np.ndarray | None = None,
        process: Process | None = None,
        accumulation_steps: int = 1,
    ) -> None:
        self.interactions = interactions
        self.store = store
        self.batch_size = batch_size
        self.seed = seed
        self.predicted = predicted
        self.users = np.arange(interactions.n_users) if users is None else users
        self.rank, self.world_size = (process.rank, process.world_size) if process else (0, 1)
        self.accumulation_steps = accumulation_steps
        self.width = interactions.max_seq_len + 1
        self._order: tuple[int, np.ndarray] = (0, self.users)
        self._require_negatives()

    def _require_negatives(self) -> None:
        if self.interactions.n_items > self.width:
            return
        for user in self.users:
            sequence = left_padded(
                self.interactions.clicks, self.interactions.train, np.array([user]), self.width
            )
            if len(np.unique(sequence[sequence > 0])) == self.interactions.n_items:
                name = self.interactions.user_names[user]
                raise UserError(
                    f"user {name!r} clicked on all {self.interactions.n_items} items, so no negative can be "
                    "drawn; training needs more items"
                )

    @property
    def steps(self) -> int:
        """Global batches in an epoch; the last may be short."""
        return -(-len(self.users) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The users of an epoch, shuffled by (seed, epoch), int64 ``[users]``."""
        if self._order[0] != epoch:
            shuffled = np.random.default_rng([self.seed, _SHUFFLE, epoch]).permutation(self.users)
            self._order = (epoch, shuffled)
        return self._order[1]

    def ids(self, epoch: int, step: int) -> IdBatch:
        """The ids of a global batch, from (seed, epoch, step) alone."""
        users = self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        positives = left_padded(self.interactions.clicks, self.interactions.train, users, self.width)
        generator = np.random.default_rng([self.seed, _NEGATIVES, epoch, step])
        return IdBatch(positives, draw_negatives(positives, self.interactions.n_items, generator))

    def __getitem__(self, at: tuple[int, int]) -> list[Batch]:
        ids = self.ids(*at)
        predicted = self.predicted(ids.log_mask)
        ids.negatives[~predicted] = 0
        mine = ids.share(self.rank, self.world_size)
        parts = (mine.share(part, self.accumulation_steps) for part in range(self.accumulation_steps))
        return [with_content(part, self.store, int(predicted.sum())) for part in parts]


def with_content(ids: IdBatch, store: ContentStore, targets_in_step: int) -> Batch:
    """Find the distinct real items of a share and fetch their content: each will be encoded once."""
    places = np.concatenate([ids.positives, ids.negatives], axis=1)
    distinct, inverse = np.unique(places, return_inverse=True)
    inverse = inverse.reshape(places.shape)
    if distinct[0] == 0:
        distinct = distinct[1:]
    else:
        inverse += 1
    if not len(distinct):
        distinct = np.array([1])  # a share without users still takes part in the step
    width = ids.positives.shape[1]
    return Batch(
        content=store.fetch(distinct),
        positives=torch.from_numpy(inverse[:, :width].copy()),
        negatives=torch.from_numpy(inverse[:, width:].copy()),
        log_mask=torch.from_numpy(ids.log_mask),
        targets_in_step=targets_in_step,
    )
