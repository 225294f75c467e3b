"""Embeddings of the whole catalogue: encoded once and kept in memory, or in a file if they are large."""

from __future__ import annotations

import mmap
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.loader import load_ahead
from adapter4rec.evaluation.settings import EvaluationSettings
from adapter4rec.utils.files import relative_to_repository, reserve
from adapter4rec.utils.precision import Precision, choose_precision
from adapter4rec.utils.process_group import Process

_ITEMS_AT_ONCE = 512
_ROWS_SUMMED_AT_ONCE = 1 << 20


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


class Embeddings(Protocol):
    """Embeddings of the items 1…N, float32; the embedding of item 0 (padding) is zero."""

    n_items: int

    def of(self, numbers: np.ndarray) -> Tensor:
        """Embeddings of item ids, int ``[...]`` → ``[..., d]``, on the compute device."""
        ...

    def slice(self, first: int, last: int) -> Tensor:
        """Embeddings of the items ``first``…``last - 1``, ``[last - first, d]``, on the compute device."""
        ...


class EmbeddingsInMemory:
    """Embeddings in one tensor.

    Args:
        rows: ``[N + 1, d]``; row 0 is zero.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.n_items = len(rows) - 1

    def of(self, numbers: np.ndarray) -> Tensor:
        """See :class:`Embeddings`."""
        return self.rows[torch.from_numpy(numbers).to(self.rows.device)]

    def slice(self, first: int, last: int) -> Tensor:
        """See :class:`Embeddings`."""
        return self.rows[first:last]

    def put(self, items: np.ndarray, rows: Tensor) -> None:
        """Set the embeddings of some items."""
        self.rows[torch.from_numpy(items)] = rows


class EmbeddingsInFile:
    """Embeddings in a memory-mapped file; pages are released after each read or write.

    Args:
        rows: ``[N + 1, d]``, float32, memory-mapped; row 0 is zero.
        device: the compute device.
    """

    def __init__(self, rows: np.memmap, device: torch.device) -> None:
        self.rows = rows
        self.device = device
        self.n_items = len(rows) - 1

    @classmethod
    def new(cls, n_items: int, width: int, folder: Path, device: torch.device) -> EmbeddingsInFile:
        """Embeddings initialised to zero in a temporary file, which is deleted automatically."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file, 4 * (n_items + 1) * width, f"embeddings of {n_items:,} items in {folder}")
            return cls(np.memmap(file, np.float32, "r+", shape=(n_items + 1, width)), device)

    def of(self, numbers: np.ndarray) -> Tensor:
        """See :class:`Embeddings`."""
        found = torch.from_numpy(self.rows[numbers]).to(self.device)
        self._release_pages()
        return found

    def slice(self, first: int, last: int) -> Tensor:
        """See :class:`Embeddings`."""
        found = torch.from_numpy(np.array(self.rows[first:last])).to(self.device)
        self._release_pages()
        return found

    def put(self, items: np.ndarray, rows: Tensor) -> None:
        """Set the embeddings of some items."""
        self.rows[items] = rows.cpu().numpy()
        self._release_pages()

    def _release_pages(self) -> None:
        """Unmap the file's pages from this process; they stay in the file and in the page cache."""
        mapping = self.rows._mmap
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class EncodeConfig:
    """How a catalogue is encoded.

    Attributes:
        workers: number of loader processes; 0 to load in the main process.
        prefetch: groups of items that each worker loads in advance.
        pin_memory: whether content is copied to page-locked memory.
        most_memory: size in bytes above which embeddings are kept in a file.
        folder: folder of that file.
        precision: number format of the encoder.
    """

    workers: int = 0
    prefetch: int = 2
    pin_memory: bool = False
    most_memory: int = 4 << 30
    folder: Path = Path("cache")
    precision: str = "fp32"

    @classmethod
    def of(cls, settings: EvaluationSettings, process: Process) -> EncodeConfig:
        """From the settings of a run."""
        return cls(
            settings.workers_on(process.device),
            settings.prefetch,
            settings.pins_memory_on(process.device),
            int(settings.embedding_memory * 2**30),
            relative_to_repository(settings.cache_folder),
            settings.evaluation_precision,
        )


class _Groups(Dataset):
    """The content of groups of items."""

    def __init__(self, groups: list[np.ndarray], store: ContentStore) -> None:
        self.groups = groups
        self.store = store

    def __getitem__(self, number: int) -> Content:
        return self.store.fetch(self.groups[number])


def encode_catalogue(
    encoder: nn.Module,
    encode: Callable[[Content], Tensor],
    store: ContentStore,
    shape: tuple[int, int],
    process: Process,
    how: EncodeConfig,
) -> EmbeddingsInMemory | EmbeddingsInFile:
    """Encode all items once, in groups of similar cost that depend only on the catalogue.

    Groups are distributed dynamically over the processes; the result is the same on all of them.

    Args:
        encoder: the module that ``encode`` uses; its weights are cast to the number format in ``how``.
        encode: maps the content of n items to ``[n, d]``.
        store: the content of the catalogue.
        shape: N and d.
        process: this process.
        how: number format, memory, workers.
    """
    n_items = shape[0]
    found = _empty(shape, process, how)
    by_cost = np.argsort(store.costs(), kind="stable") + 1
    groups = [by_cost[start : start + _ITEMS_AT_ONCE] for start in range(0, n_items, _ITEMS_AT_ONCE)]
    precision: Precision = choose_precision(how.precision, process.device)
    pending: deque[int] = deque()

    def numbers_to_load() -> Iterator[int]:
        for number in process.distribute(len(groups)):
            pending.append(number)
            yield number

    loader = load_ahead(
        _Groups(groups, store),
        numbers_to_load(),
        workers=min(how.workers, max(0, len(groups) - 1)),  # no benefit for a single group
        prefetch=how.prefetch,
        pin_memory=how.pin_memory,
    )
    with precision.frozen_weights(encoder, whole=True), precision.autocast():
        for content in loader:
            rows = encode(content.to(process.device)).float()
            found.put(groups[pending.popleft()], rows)
    if process.world_size > 1:
        for first in range(0, n_items + 1, _ROWS_SUMMED_AT_ONCE):
            numbers = np.arange(first, min(first + _ROWS_SUMMED_AT_ONCE, n_items + 1))
            found.put(numbers, process.all_reduce(found.of(numbers)))
    return found


def _empty(
    shape: tuple[int, int], process: Process, how: EncodeConfig
) -> EmbeddingsInMemory | EmbeddingsInFile:
    n_items, width = shape
    if 4 * (n_items + 1) * width > how.most_memory:
        return EmbeddingsInFile.new(n_items, width, how.folder, process.device)
    return EmbeddingsInMemory(torch.zeros(n_items + 1, width, device=process.device))
