"""Reading, decoding and resizing images in threads; Pillow releases the GIL."""

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
"""Images in flight per worker; bounds memory when writing is slower than decoding."""


@dataclass(frozen=True)
class Job:
    """An item and the place of its image."""

    name: bytes
    place: Place


@dataclass(frozen=True)
class Prepared:
    """The LMDB value of an item, or an error.

    Attributes:
        name: name of the item.
        value: value to store; None if the image cannot be read.
        reason: the error in that case.
    """

    name: bytes
    value: bytes | None
    reason: str = ""


@dataclass(frozen=True)
class Preparer:
    """Reads and converts images. Thread-safe.

    Attributes:
        source: source of the images.
        form: storage format.
        size: height and width of the pixels.
    """

    source: ImageSource
    form: Storage
    size: int

    def __call__(self, job: Job) -> Prepared:
        """Prepare one item."""
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
    """Run all jobs in threads and yield the results in order.

    Args:
        preparer: prepares an item.
        jobs: the items.
        workers: number of threads.

    Raises:
        UserError: invalid input.
    """
    Image.init()  # Pillow imports its plugins lazily, which is not thread-safe
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
