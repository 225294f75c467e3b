"""Reading, decoding and resizing images in threads: Pillow releases the interpreter lock for all of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from adapter4rec.data.images.decoding import BrokenImageError, resized
from adapter4rec.data.images.records import ImageRecord, Storage, pack
from adapter4rec.data.images.sources import ImageSource, Place

_IMAGES_AHEAD = 16
"""Images in progress per worker; keeps memory flat when writing is slower than decoding."""


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
    """Turns jobs into values, in several threads at once.

    Attributes:
        source: where images come from.
        form: what is kept of them.
        size: height and width of the pixels.
    """

    source: ImageSource
    form: Storage
    size: int

    def __call__(self, job: Job) -> Prepared:
        """The value of one item."""
        try:
            data, picture = self.source.load(job.place)
            if self.form is Storage.PIXELS:
                data = resized(picture.image, self.size).tobytes()
                width = height = self.size
            else:
                width, height = picture.image.size
        except BrokenImageError as error:
            return Prepared(job.name, None, str(error))
        return Prepared(
            job.name, pack(job.name, ImageRecord(self.form, picture.conversions, height, width, data))
        )


def prepared(preparer: Preparer, jobs: Sequence[Job], workers: int) -> Iterator[Prepared]:
    """Yield the values of all jobs in order.

    Args:
        preparer: makes them.
        jobs: the items.
        workers: number of threads.

    Raises:
        UserError: bad input that ends a build.
    """
    Image.init()  # Pillow imports its readers when it first needs them, which is not safe in threads
    pool = ThreadPoolExecutor(workers)
    in_progress: deque[Future[Prepared]] = deque()
    try:
        for job in jobs:
            in_progress.append(pool.submit(preparer, job))
            if len(in_progress) >= workers * _IMAGES_AHEAD:
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
