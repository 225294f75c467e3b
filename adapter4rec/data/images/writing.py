"""Writing the LMDB of item images, in atomic transactions."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import lmdb

from adapter4rec.data.images.database import (
    CHECKSUM_BYTES,
    DATA_FILE,
    DESCRIPTION_KEY,
    Description,
    bytes_in_use,
    lmdb_message,
    require_whole,
)
from adapter4rec.utils.errors import UserError


class ImageWriter:
    """Writes images to the LMDB of a build that may have been interrupted before.

    Args:
        environment: the LMDB.
        plan: description of the LMDB to build.

    Raises:
        UserError: the build was started with other options, or by another version.
    """

    def __init__(self, environment: lmdb.Environment, plan: Description) -> None:
        self._environment = environment
        self._plan = plan
        folder = Path(environment.path())
        self._file = folder / DATA_FILE
        with environment.begin() as transaction:
            raw = transaction.get(DESCRIPTION_KEY)
        if raw is None:
            self._put({DESCRIPTION_KEY: plan.to_bytes()})
        else:
            Description.from_bytes(raw, folder).require_same_options(plan, folder)

    def names(self) -> set[bytes]:
        """Names of the items already written."""
        with self._environment.begin() as transaction:
            return set(transaction.cursor().iternext(keys=True, values=False)) - {DESCRIPTION_KEY}

    def write(self, values: Mapping[bytes, bytes]) -> None:
        """Write values by item name, in one transaction."""
        self._put(values)

    def _put(self, values: Mapping[bytes, bytes]) -> None:
        with self._environment.begin(write=True) as transaction:
            for name, value in values.items():
                transaction.put(name, value)
        # LMDB may not write trailing pages that were used and freed; readers expect the full file.
        os.truncate(self._file, max(self._file.stat().st_size, bytes_in_use(self._environment)))

    def finish(self, left_out: Sequence[bytes]) -> Description:
        """Write the final description.

        Args:
            left_out: names of the items without an image.
        """
        digest = hashlib.sha256()
        images = 0
        with self._environment.begin() as transaction:
            for name, value in transaction.cursor():
                if name != DESCRIPTION_KEY:
                    digest.update(b"%d %b %b" % (len(name), name, value[:CHECKSUM_BYTES]))
                    images += 1
        found = replace(self._plan, images=images, left_out=tuple(left_out), content=digest.hexdigest())
        self._put({DESCRIPTION_KEY: found.to_bytes()})
        return found


@contextmanager
def image_writer(folder: Path, plan: Description, items: int) -> Iterator[ImageWriter]:
    """Create the LMDB of a build, or reopen it after an interruption.

    Args:
        folder: folder of the LMDB.
        plan: description of the LMDB to build.
        items: maximum number of images.

    Raises:
        UserError: the LMDB is damaged or was started with other options, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An upper bound, which reserves addresses and no space: twice the content, as pages may be half full.
    most = 2 * items * (plan.size**2 * 3 + (1 << 14)) + (1 << 26)
    try:
        # LMDB's own lock is not needed: there is one writer, and no reader before the folder is renamed.
        environment = lmdb.open(str(folder), map_size=most, lock=False, meminit=False)
        with closing(require_whole(environment, folder / DATA_FILE)):
            yield ImageWriter(environment, plan)
    except lmdb.Error as error:
        free = shutil.disk_usage(folder).free / 1e9
        raise UserError(
            f"{folder}: cannot write LMDB: {lmdb_message(error)} ({free:,.1f} GB free on the disk). Images "
            "already written are kept: run the same command again to resume, or remove a damaged LMDB"
        ) from None
