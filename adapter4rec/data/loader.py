"""Prefetching with worker processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.processes import outlive_signals, signals_blocked

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")


class _Loaded(Dataset[T | UserError], Generic[I, T]):
    """Returns errors instead of raising them: torch wraps an error of a worker process in a traceback."""

    def __init__(self, load: Callable[[I], T]) -> None:
        self.load = load

    def __getitem__(self, index: I) -> T | UserError:
        try:
            return self.load(index)
        except UserError as error:
            return error


_GRACE_SECONDS = 60


def _follow_main_process(_: int) -> None:
    """Let a worker outlive a signal to all processes, as the main process finishes its step.

    The worker ends when the main process ends it or has gone, its threads silently.
    """
    outlive_signals(_GRACE_SECONDS)
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, EOFError | ConnectionError):
            shown(kind, error, trace)

    sys.excepthook = show


def load_ahead(
    load: Callable[[I], T], indices: Iterable[I], *, workers: int, prefetch: int, pin_memory: bool
) -> Iterator[T]:
    """Yield ``load(index)`` for each index, in order, prefetched by worker processes.

    Args:
        load: loads one item.
        indices: what to load; consumed ahead of the results.
        workers: number of worker processes; 0 loads in this process, without prefetching.
        prefetch: items that each worker keeps ready.
        pin_memory: copy the items to pinned memory.

    Raises:
        UserError: ``load`` raised one, or a worker process was killed.
    """
    loader = DataLoader(
        _Loaded(load),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_follow_main_process,
        prefetch_factor=prefetch if workers else None,
        # Forked workers share memory-mapped arrays; spawned ones would get a copy.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    try:
        with signals_blocked():  # a worker that is signalled while it starts would end
            batches = iter(loader)
        for found in batches:
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
