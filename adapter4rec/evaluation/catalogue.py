"""Embeddings of the whole catalogue, encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adapter4rec.data.content import ContentStore
from adapter4rec.data.loader import load_ahead
from adapter4rec.evaluation.settings import RankingSettings
from adapter4rec.models.transrec import TransRec
from adapter4rec.utils.precision import choose_precision
from adapter4rec.utils.process_group import Process

_ITEMS_AT_ONCE = 512


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; restores the previous mode on exit."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the items 1…N, on the compute device.

    Attributes:
        rows: float32 ``[N + 1, d]``; row 0 (padding) is zero.
    """

    rows: Tensor

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return len(self.rows) - 1

    def of(self, numbers: np.ndarray) -> Tensor:
        """Embeddings of item ids, int ``[...]`` → ``[..., d]``."""
        return self.rows[torch.from_numpy(numbers).to(self.rows.device)]


def encode_catalogue(
    model: TransRec, store: ContentStore, n_items: int, process: Process, settings: RankingSettings
) -> Embeddings:
    """Encode all items once, in groups of similar cost that depend only on the catalogue.

    The groups are divided among the processes; the result is the same on all of them.

    Args:
        model: in eval mode; the weights of its item encoder are cast to the number format of evaluation.
        store: the content of the catalogue.
        n_items: N.
        process: this process.
        settings: number format, loader processes.
    """
    rows = torch.zeros(n_items + 1, model.user_encoder.width, device=process.device)
    by_cost = np.argsort(store.costs(np.arange(1, n_items + 1)), kind="stable") + 1
    groups = [by_cost[start : start + _ITEMS_AT_ONCE] for start in range(0, n_items, _ITEMS_AT_ONCE)]
    own = process.distribute(len(groups))
    precision = choose_precision(settings.evaluation_precision, process.device, "evaluation_precision")
    loader = load_ahead(
        store.fetch,
        [groups[number] for number in own],
        # No benefit for a single group.
        workers=settings.workers_on(process.device) if len(groups) > 1 else 0,
        prefetch=settings.prefetch,
        pin_memory=settings.pins_memory_on(process.device),
    )
    with precision.frozen_weights(model.item_encoder, whole=True), precision.autocast():
        for number, content in zip(own, loader, strict=True):
            rows[torch.from_numpy(groups[number])] = model.encode_items(content.to(process.device))
    return Embeddings(process.all_reduce(rows))
