"""Reading ahead: worker processes that prepare what is asked for next."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from adapter4rec.utils.errors import UserError


class _Reporting(Dataset):
    """What a data set gives, or the error that preparing it met: a worker process cannot raise it whole."""

    def __init__(self, prepared: Dataset) -> None:
        self.prepared = prepared

    def __getitem__(self, number: int) -> Any:
        try:
            return self.prepared[number]
        except UserError as error:
            return error


class _Order:
    """The numbers to be prepared, asked for one by one."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def load_ahead(
    prepared: Dataset, numbers: Iterable[int], *, workers: int, prefetch: int, pin_memory: bool
) -> Iterator[Any]:
    """``prepared[number]`` for each number, in order.

    Args:
        prepared: prepares what belongs to a number.
        numbers: asked for as far ahead as the workers prepare.
        workers: processes that prepare; with 0 it is done when it is asked for.
        prefetch: how much each worker keeps ready.
        pin_memory: put it into page-locked memory.

    Raises:
        UserError: preparing met one, or a worker was ended from outside.
    """
    loader = DataLoader(
        _Reporting(prepared),
        batch_size=None,
        sampler=_Order(numbers),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        # Forked ones share what is mapped from disk; others would be sent a copy.
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
            "a process that prepares data was ended from outside, for want of memory or of shared memory "
            f"(/dev/shm): lower --workers {workers} or --prefetch {prefetch}, or give --workers 0"
        ) from None
