"""Prefetching with worker processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from adapter4rec.utils.errors import UserError


class _ErrorsAsItems(Dataset):
    """Returns errors instead of raising them: torch wraps an error of a worker process in a traceback."""

    def __init__(self, prepared: Dataset) -> None:
        self.prepared = prepared

    def __getitem__(self, number: int) -> Any:
        try:
            return self.prepared[number]
        except UserError as error:
            return error


class _Sampler:
    """A sampler over any iterable."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def load_ahead(
    prepared: Dataset, numbers: Iterable[int], *, workers: int, prefetch: int, pin_memory: bool
) -> Iterator[Any]:
    """Yield ``prepared[number]`` for each number, in order, prefetched by worker processes.

    Args:
        prepared: dataset.
        numbers: indices into the dataset; consumed ahead of the results.
        workers: number of worker processes; 0 loads in this process, without prefetching.
        prefetch: items that each worker keeps ready.
        pin_memory: copy the items to pinned memory.

    Raises:
        UserError: the dataset raised one, or a worker process was killed.
    """
    loader = DataLoader(
        _ErrorsAsItems(prepared),
        batch_size=None,
        sampler=_Sampler(numbers),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        # Forked workers share memory-mapped arrays; spawned ones would get a copy.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    try:
        for found in loader:
            if isinstance(found, UserError):
                raise found
            yield found
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a data loader process was killed, probably because memory or shared memory (/dev/shm) ran out; "
            f"lower --workers {workers} or --prefetch {prefetch}, or use --workers 0"
        ) from None
