"""Reading, decoding and resizing images, in worker processes where there are several.

Workers import no torch, so that they start in a moment and stay small.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait

from adapter4rec.data.images.decoding import BrokenImageError, resized
from adapter4rec.data.images.records import Form, Record, pack
from adapter4rec.data.images.sources import ImageSource, Place
from adapter4rec.utils.errors import UserError

_CHUNK = 16
"""Images that a worker is given at once."""
_CHUNKS_AHEAD = 3
"""Chunks under way for each worker; keeps memory flat when writing is slower than decoding."""


@dataclass(frozen=True)
class Job:
    """An item and where its image is."""

    name: bytes
    place: Place


@dataclass(frozen=True)
class Prepared:
    """An item's value for the database, or why there is none.

    Attributes:
        name: the item.
        value: what to store, or None where the image is broken.
        reason: why it is.
    """

    name: bytes
    value: bytes | None
    reason: str = ""


@dataclass(frozen=True)
class Preparer:
    """Turns jobs into values, in any process.

    Attributes:
        source: where images come from.
        form: what is kept of them.
        size: height and width of the pixels.
    """

    source: ImageSource
    form: Form
    size: int

    def __call__(self, jobs: Sequence[Job]) -> list[Prepared]:
        """The values of some items, in order."""
        return [self._one(job) for job in jobs]

    def _one(self, job: Job) -> Prepared:
        try:
            data, picture = self.source.load(job.place)
            if self.form is Form.PIXELS:
                data = resized(picture.image, self.size).tobytes()
                width = height = self.size
            else:
                width, height = picture.image.size
        except BrokenImageError as error:
            return Prepared(job.name, None, str(error))
        return Prepared(job.name, pack(job.name, Record(self.form, picture.conversions, height, width, data)))


def prepared(preparer: Preparer, jobs: Sequence[Job], processes: int) -> Iterator[list[Prepared]]:
    """Yield the values of all jobs in order, some at a time.

    Args:
        preparer: makes them.
        jobs: the items.
        processes: workers, which import the program's main module as usual with ``spawn``; with 0 or 1 the
            work is done in this process.

    Raises:
        UserError: a worker was killed, or met bad input that ends a build.
    """
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    processes = min(processes, len(chunks))
    if processes <= 1:
        yield from map(preparer, chunks)
        return
    workers = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_die_with_parent
    )
    under_way: deque[Future[list[Prepared]]] = deque()
    try:
        for chunk in chunks:
            with _ctrl_c_held_back():  # submitting starts workers, which inherit that
                under_way.append(workers.submit(preparer, chunk))
            if len(under_way) >= processes * _CHUNKS_AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was ended from outside, perhaps for want of memory; what was written is kept: "
            "give the same command again, with fewer --processes, and it goes on from there"
        ) from None
    finally:
        workers.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Deliver Ctrl-C at the end only, and never to processes started here: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent() -> None:
    """End when the parent was killed: nobody else would tell a worker."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
