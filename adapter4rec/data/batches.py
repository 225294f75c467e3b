"""Training batches: item ids, sampled negatives and masks, then the content of the distinct items.

The ids of a global batch depend only on (seed, epoch, step). Every process builds them for the global batch.
It then keeps its share of the users, and fetches the content of its share of the distinct items.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.interactions import Interactions
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

_SHUFFLE, _NEGATIVES = 0, 1
_SHARE = 3  # 2 is used for dropout (training/step.py)


@dataclass(frozen=True)
class Sampling:
    """The targets of a training objective, and the items that a loss compares with them.

    Attributes:
        positions: the positions of a sequence whose next item is predicted.
        per_target: number of negatives sampled for each target, which are not in the user's sequence.
        shared: number of negatives sampled for the whole batch.
        in_batch: whether the items of the sequences are candidates, too.
        catalogue: whether a batch contains all items of the catalogue.
    """

    positions: slice = field(default_factory=lambda: slice(None))
    per_target: int = 0
    shared: int = 0
    in_batch: bool = False
    catalogue: bool = False


@dataclass(frozen=True)
class Batch(Content):
    """The share of one process in a training step: its users, and its part of the items to encode.

    Rows are 1-based indices into the distinct items of the global batch; 0 is padding.

    Attributes:
        contents: content of the items that this process encodes, one part per gradient accumulation step.
        own: their rows, ``own.start`` … ``own.stop - 1`` in ``items``.
        items: int64 ``[n]``, ids of the distinct items of the global batch.
        positives: int64 ``[users, L + 1]``, rows of the sequences.
        places: int64 ``[T]``, where the T targets are predicted: user · L + position.
        next_rows: int64 ``[T]``, rows of the targets.
        negatives: int64 ``[T, k]``, rows of the negatives of each target.
        shared: int64 ``[k]``, rows of the negatives that the batch shares.
        expected: float32 ``[n]``, expected number of times that each item is drawn into a batch; empty if
            the loss has no in-batch candidates.
        log_mask: bool ``[users, L]``, true at input positions that are not padding.
        targets_in_step: number of targets in the global batch, over which the loss is averaged.
    """

    contents: tuple[Content, ...]
    own: slice
    items: Tensor
    positives: Tensor
    places: Tensor
    next_rows: Tensor
    negatives: Tensor
    shared: Tensor
    expected: Tensor
    log_mask: Tensor
    targets_in_step: int

    @property
    def n_rows(self) -> int:
        """Number of rows, with padding."""
        return len(self.items) + 1

    @property
    def users(self) -> Tensor:
        """The user of each target, int64 ``[T]``."""
        return self.places // self.log_mask.shape[1]


@dataclass(frozen=True)
class IdBatch:
    """Item ids of a global batch, 0 for padding.

    Attributes:
        positives: int64 ``[users, L + 1]``, the sequences.
        negatives: int64 ``[users, L, k]``, negatives of each target.
        shared: int64 ``[k]``, distinct negatives that the batch shares.
    """

    positives: np.ndarray
    negatives: np.ndarray
    shared: np.ndarray

    @property
    def log_mask(self) -> np.ndarray:
        """Bool ``[users, L]``, true at input positions that are not padding."""
        return self.positives[:, :-1] > 0


def draw_negatives(
    positives: np.ndarray, n_items: int, per_target: int, generator: np.random.Generator
) -> np.ndarray:
    """Sample k negatives per target, uniformly from the items that are not in the user's sequence.

    Args:
        positives: int64 ``[users, L + 1]``, 0 for padding.
        n_items: number of items N.
        per_target: k.
        generator: random number generator.

    Returns:
        int64 ``[users, L, k]``; 0 where the input position is padding.
    """
    real = positives[:, :-1] > 0
    negatives = generator.integers(1, n_items + 1, (*real.shape, per_target))
    users, places, numbers = np.nonzero(np.broadcast_to(real[..., None], negatives.shape))
    while len(users):
        drawn = negatives[users, places, numbers]
        clash = (positives[users] == drawn[:, None]).any(axis=1)
        users, places, numbers = users[clash], places[clash], numbers[clash]
        negatives[users, places, numbers] = generator.integers(1, n_items + 1, len(users))
    negatives[~real] = 0
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


class TrainingSet:
    """Training batches of a domain; each user occurs once per epoch.

    ``training_set[epoch, step]`` is this process's share of a global batch.

    Args:
        interactions: interactions of the domain.
        store: content of its items.
        batch_size: users per global batch.
        seed: random seed of the shuffling and of the negatives.
        sampling: targets and negatives.
        users: indices of the training users; default: all.
        process: this process; default: a single process.
        accumulation_steps: gradient accumulation steps.

    Raises:
        UserError: a user's training sequence contains all items, so no negative can be sampled; or more
            negatives than items.
    """

    def __init__(
        self,
        interactions: Interactions,
        store: ContentStore,
        *,
        batch_size: int,
        seed: int,
        sampling: Sampling,
        users: np.ndarray | None = None,
        process: Process | None = None,
        accumulation_steps: int = 1,
    ) -> None:
        self.interactions = interactions
        self.store = store
        self.batch_size = batch_size
        self.seed = seed
        self.sampling = sampling
        self.users = interactions.trainable_users() if users is None else users
        self.rank, self.world_size = (process.rank, process.world_size) if process else (0, 1)
        self.accumulation_steps = accumulation_steps
        self.width = interactions.max_seq_len + 1
        self._order: tuple[int, np.ndarray] = (0, self.users)
        self._require_negatives()
        self.expected = self._expected() if sampling.in_batch else None  # here, so that workers share it

    def _require_negatives(self) -> None:
        n_items, most = self.interactions.n_items, max(self.sampling.per_target, self.sampling.shared)
        if most > n_items:
            raise UserError(f"--negatives {most}: the domain has only {n_items:,} items; choose fewer")
        if self.sampling.per_target and n_items <= self.width:
            sequences = np.sort(self._sequences(self.users), axis=1)
            distinct = (np.diff(sequences, axis=1, prepend=0) > 0).sum(axis=1)
            for user in self.users[distinct == n_items]:
                raise UserError(
                    f"cannot sample a negative for user {self.interactions.user_names[user]!r}, who clicked "
                    f"on all {n_items} items; training needs more items"
                )

    def _sequences(self, users: np.ndarray) -> np.ndarray:
        return self.interactions.padded(users, self.interactions.split.train_stops[users], self.width)

    @property
    def steps(self) -> int:
        """Global batches per epoch, including a smaller last one."""
        return -(-len(self.users) // self.batch_size)

    def _expected(self) -> np.ndarray:
        """Expected number of times that each item is drawn into a full batch, float32 ``[N]``.

        From the sequences, as many times as a batch has users; from the shared negatives, k / N.
        """
        share = min(1, self.batch_size / len(self.users))
        clicks = self.interactions.training_clicks(self.users)
        return (share * clicks + self.sampling.shared / self.interactions.n_items).astype(np.float32)

    def order(self, epoch: int) -> np.ndarray:
        """Order of the users in an epoch, int64 ``[users]``; depends only on (seed, epoch)."""
        if self._order[0] != epoch:
            shuffled = np.random.default_rng([self.seed, _SHUFFLE, epoch]).permutation(self.users)
            self._order = (epoch, shuffled)
        return self._order[1]

    def ids(self, epoch: int, step: int) -> IdBatch:
        """Ids of a global batch; they depend only on (seed, epoch, step)."""
        users = self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        positives = self._sequences(users)
        generator = np.random.default_rng([self.seed, _NEGATIVES, epoch, step])
        n_items = self.interactions.n_items
        return IdBatch(
            positives,
            draw_negatives(positives, n_items, self.sampling.per_target, generator),
            generator.choice(n_items, self.sampling.shared, replace=False) + 1,
        )

    def __getitem__(self, at: tuple[int, int]) -> Batch:
        catalogue = self.sampling.catalogue
        return make_batch(
            self.ids(*at),
            self.store,
            self.sampling.positions,
            items=np.arange(1, self.interactions.n_items + 1) if catalogue else None,
            expected=self.expected,
            share=(self.rank, self.world_size),
            parts=self.accumulation_steps,
        )


def make_batch(
    ids: IdBatch,
    store: ContentStore,
    positions: slice = slice(None),
    *,
    items: np.ndarray | None = None,
    expected: np.ndarray | None = None,
    share: tuple[int, int] = (0, 1),
    parts: int = 1,
) -> Batch:
    """The share of a process in a global batch, with the content of the items that it encodes.

    Each item is encoded once in a step, by one process.

    Args:
        ids: ids of the global batch.
        store: content of all items.
        positions: the positions whose next item is predicted.
        items: int64, distinct ids in ascending order; by default those in ``ids``.
        expected: see :attr:`Batch.expected`, float32 ``[N]``.
        share: rank and number of processes.
        parts: gradient accumulation steps.
    """
    rank, world_size = share
    predicted = np.zeros_like(ids.log_mask)
    predicted[:, positions] = ids.log_mask[:, positions]
    if items is None:
        drawn = ids.negatives[predicted].ravel()
        items = np.unique(np.concatenate([ids.positives.ravel(), drawn, ids.shared]))
        items = items[items > 0]
    users = np.array_split(np.arange(len(ids.positives)), world_size)[rank]
    sequences = ids.positives[users] if len(users) else np.zeros_like(ids.positives[:1])
    targets = predicted[users]
    own = np.array_split(np.arange(len(items)), world_size)[rank]

    def rows(found: np.ndarray) -> Tensor:
        return torch.from_numpy(np.where(found > 0, np.searchsorted(items, found) + 1, 0))

    return Batch(
        contents=tuple(store.fetch(items[part]) for part in np.array_split(own, parts) if len(part)),
        own=slice(own[0], own[-1] + 1) if len(own) else slice(0, 0),
        items=torch.from_numpy(items),
        positives=rows(sequences),
        places=torch.from_numpy(np.flatnonzero(targets)),
        next_rows=rows(ids.positives[users, 1:][targets]),
        negatives=rows(ids.negatives[users][targets]),
        shared=rows(ids.shared),
        expected=torch.from_numpy(np.empty(0, np.float32) if expected is None else expected[items - 1]),
        log_mask=torch.from_numpy(sequences[:, :-1] > 0),
        targets_in_step=int(predicted.sum()),
    )
