"""Leave-one-out evaluation: the whole catalogue is ranked for every user (see ``ranking.py``)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from adapter4rec.catalogue import Embeddings, EmbeddingsInMemory, Encoding, encode_catalogue, evaluating
from adapter4rec.data.batches import left_padded
from adapter4rec.data.content import ContentStore
from adapter4rec.data.interactions import Interactions, Ranges
from adapter4rec.distributed import Process
from adapter4rec.domains import Domain
from adapter4rec.models.transrec import TransRec
from adapter4rec.ranking import Question, rank_targets

_USERS_AT_ONCE = 8192
_USERS_ENCODED_AT_ONCE = 1024


class Split(str, Enum):
    """Which target is ranked: the last but one click, or the last."""

    VALIDATION = "validation"
    TEST = "test"


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


def rank_users(
    vectors: Callable[[Question], Tensor],
    catalogue: Embeddings,
    interactions: Interactions,
    split: Split,
    process: Process,
) -> np.ndarray:
    """Rank every user's target once, whatever the number of processes.

    Args:
        vectors: gives the next-item vectors, float32 ``[users, d]``, for a question.
        catalogue: embeddings of all items.
        interactions: the domain.
        split: validation or test.
        process: blocks of users, fixed by the data alone, are dealt out to the processes.

    Returns:
        int64 ``[users]``, on every process.
    """
    mine = np.zeros(interactions.n_users, np.int64)
    for number in process.dealt(-(-interactions.n_users // _USERS_AT_ONCE)):
        first = number * _USERS_AT_ONCE
        users = np.arange(first, min(first + _USERS_AT_ONCE, interactions.n_users))
        question = questions(interactions, split, users)
        mine[users] = rank_targets(vectors(question), catalogue, question)
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


def next_item_vectors(model: TransRec, catalogue: Embeddings, inputs: np.ndarray) -> Tensor:
    """What some users' next items are scored with.

    Args:
        model: in eval mode.
        catalogue: embeddings of all items.
        inputs: item numbers ``[users, L]``, 0 for padding.

    Returns:
        float32 ``[users, d]``.
    """
    parts = []
    for some in np.array_split(inputs, max(1, len(inputs) // _USERS_ENCODED_AT_ONCE)):
        items = catalogue.of(some)
        log_mask = torch.from_numpy(some > 0).to(items.device)
        parts.append(model.encode_users(items, log_mask)[:, -1])
    return torch.cat(parts)


def embedded_catalogue(
    model: TransRec, store: ContentStore, n_items: int, process: Process, how: Encoding
) -> Embeddings:
    """Embeddings of all items of a catalogue; see :func:`encode_catalogue`."""
    shape = (n_items, model.user_encoder.width)
    return encode_catalogue(model.item_encoder, model.encode_items, store, shape, process, how)


def evaluate(
    model: TransRec,
    domain: Domain,
    split: Split,
    process: Process,
    how: Encoding | None = None,
) -> dict[str, float]:
    """HR@10 and NDCG@10 of a model, in per cent, in eval mode and float32.

    Args:
        model: is left in the mode in which it was.
        domain: users and items.
        split: validation or test.
        process: this process, one of those that share the work.
        how: the catalogue is encoded.
    """
    interactions = domain.interactions
    with evaluating(model):
        catalogue = embedded_catalogue(model, domain.store, interactions.n_items, process, how or Encoding())

        def vectors(question: Question) -> Tensor:
            return next_item_vectors(model, catalogue, question.inputs)

        return metrics_of(rank_users(vectors, catalogue, interactions, split, process))


def popularity_scores(interactions: Interactions) -> np.ndarray:
    """Clicks on each item in the users' training sequences, float32 ``[N]``."""
    train = interactions.train
    is_train = np.ones(len(interactions.clicks), bool)
    is_train[train.stop] = is_train[train.stop + 1] = False
    counts = np.bincount(interactions.clicks[is_train], minlength=interactions.n_items + 1)
    return counts[1:].astype(np.float32)


def evaluate_popularity(interactions: Interactions, split: Split, process: Process) -> dict[str, float]:
    """The baseline that ranks items by their clicks, the same for every user."""
    popularity = torch.from_numpy(np.concatenate([[0], popularity_scores(interactions)]).astype(np.float32))
    # A score is the product of one number a user, which is 1, and one an item.
    catalogue = EmbeddingsInMemory(popularity[:, None])
    ranks = rank_users(
        lambda question: torch.ones(len(question.targets), 1), catalogue, interactions, split, process
    )
    return metrics_of(ranks)
