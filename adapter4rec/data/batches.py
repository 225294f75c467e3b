"""Training batches: item ids, sampled negatives and masks, then the content of the distinct items.

The ids of a global batch depend only on (seed, epoch, step). Every process builds them for the global batch,
so that it knows the total number of targets, then keeps its share of the users and fetches the content of
their distinct items.
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
_SHARE = 3  # 2 is used for dropout (training/setup.py)


@dataclass(frozen=True)
class Batch(Content):
    """The share of one process in a training step, or one of its gradient accumulation steps.

    Attributes:
        content: content of the distinct items of this share.
        positives: int64 ``[users, L + 1]``, 1-based indices into ``content``; 0 is padding.
        negatives: int64 ``[users, L]``, the same for the negatives; ``negatives[:, i]`` belongs to the target
            ``positives[:, i + 1]``.
        log_mask: bool ``[users, L]``, true at input positions that are not padding.
        targets_in_step: number of targets in the global batch, over which the loss is averaged.
    """

    content: Content
    positives: Tensor
    negatives: Tensor
    log_mask: Tensor
    targets_in_step: int


@dataclass(frozen=True)
class IdBatch:
    """Item ids of some users, 0 for padding. Shapes as in :class:`Batch`."""

    positives: np.ndarray
    negatives: np.ndarray

    @property
    def log_mask(self) -> np.ndarray:
        """Bool ``[users, L]``, true at input positions that are not padding."""
        return self.positives[:, :-1] > 0

    def share(self, part: int, parts: int) -> IdBatch:
        """The users of share ``part`` of ``parts``; an empty share gets one user of padding only."""
        mine = np.array_split(np.arange(len(self.positives)), parts)[part]
        if len(mine):
            return IdBatch(self.positives[mine], self.negatives[mine])
        return IdBatch(np.zeros_like(self.positives[:1]), np.zeros_like(self.negatives[:1]))


def pad_left(clicks: np.ndarray, ranges: Ranges, users: np.ndarray, width: int) -> np.ndarray:
    """The last ``width`` clicks of each user's range, int64 ``[users, width]``, 0 on the left."""
    at = ranges.stop[users, None] - width + np.arange(width)
    real = at >= ranges.start[users, None]
    return np.where(real, clicks[np.maximum(at, 0)], 0).astype(np.int64)


def draw_negatives(positives: np.ndarray, n_items: int, generator: np.random.Generator) -> np.ndarray:
    """Sample one negative per target, uniformly from the items that are not in the user's sequence.

    Args:
        positives: int64 ``[users, L + 1]``, 0 for padding.
        n_items: number of items N.
        generator: random number generator.

    Returns:
        int64 ``[users, L]``; 0 where the input position is padding.
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


def sample_users(n_users: int, share: float, seed: int) -> np.ndarray:
    """Sample a share of the users for training. For one seed, larger shares contain the smaller ones.

    Args:
        n_users: number of users of the domain.
        share: fraction of the users, greater than 0; at least one user is sampled.
        seed: random seed.

    Returns:
        int64, indices of the users, ascending.
    """
    count = max(1, round(share * n_users))
    return np.sort(np.random.default_rng([seed, _SHARE]).permutation(n_users)[:count])


class TrainingSet(Dataset):
    """Training batches of a domain; each user occurs once per epoch.

    ``training_set[epoch, step]`` is this process's share of a global batch: a list with one :class:`Batch`
    per gradient accumulation step.

    Args:
        interactions: interactions of the domain.
        store: content of its items.
        batch_size: users per global batch.
        seed: random seed of the shuffling and of the negatives.
        predicted: maps ``log_mask`` to the positions that the loss predicts (see ``Loss.predicted``).
            Negatives at other positions are not encoded.
        users: indices of the training users; default: all.
        process: this process; default: a single process.
        accumulation_steps: gradient accumulation steps.

    Raises:
        UserError: a user's training sequence contains all items, so no negative can be sampled.
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
            sequence = pad_left(
                self.interactions.clicks, self.interactions.train, np.array([user]), self.width
            )
            if len(np.unique(sequence[sequence > 0])) == self.interactions.n_items:
                name = self.interactions.user_names[user]
                raise UserError(
                    f"cannot sample a negative for user {name!r}, who clicked on all "
                    f"{self.interactions.n_items} items; training needs more items"
                )

    @property
    def steps(self) -> int:
        """Global batches per epoch, including a smaller last one."""
        return -(-len(self.users) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Order of the users in an epoch, int64 ``[users]``; depends only on (seed, epoch)."""
        if self._order[0] != epoch:
            shuffled = np.random.default_rng([self.seed, _SHUFFLE, epoch]).permutation(self.users)
            self._order = (epoch, shuffled)
        return self._order[1]

    def ids(self, epoch: int, step: int) -> IdBatch:
        """Ids of a global batch; they depend only on (seed, epoch, step)."""
        users = self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        positives = pad_left(self.interactions.clicks, self.interactions.train, users, self.width)
        generator = np.random.default_rng([self.seed, _NEGATIVES, epoch, step])
        return IdBatch(positives, draw_negatives(positives, self.interactions.n_items, generator))

    def __getitem__(self, at: tuple[int, int]) -> list[Batch]:
        ids = self.ids(*at)
        predicted = self.predicted(ids.log_mask)
        ids.negatives[~predicted] = 0
        mine = ids.share(self.rank, self.world_size)
        parts = (mine.share(part, self.accumulation_steps) for part in range(self.accumulation_steps))
        return [fetch_content(part, self.store, int(predicted.sum())) for part in parts]


def fetch_content(ids: IdBatch, store: ContentStore, targets_in_step: int) -> Batch:
    """Fetch the content of the distinct items of a share, so that each item is encoded once."""
    places = np.concatenate([ids.positives, ids.negatives], axis=1)
    distinct, inverse = np.unique(places, return_inverse=True)
    inverse = inverse.reshape(places.shape)
    if distinct[0] == 0:
        distinct = distinct[1:]
    else:
        inverse += 1
    if not len(distinct):
        distinct = np.array([1])  # an empty share still takes part in the step
    width = ids.positives.shape[1]
    return Batch(
        content=store.fetch(distinct),
        positives=torch.from_numpy(inverse[:, :width].copy()),
        negatives=torch.from_numpy(inverse[:, width:].copy()),
        log_mask=torch.from_numpy(ids.log_mask),
        targets_in_step=targets_in_step,
    )
