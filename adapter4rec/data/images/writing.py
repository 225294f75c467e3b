"""Writing the LMDB of item images, in atomic transactions."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import lmdb

from adapter4rec.data.images.database import (
    CHECKSUM_BYTES,
    DATA_FILE,
    bytes_in_use,
    lmdb_message,
    require_whole,
)
from adapter4rec.data.images.description import DESCRIPTION_KEY, SOURCES_KEY, Description, ImageSource
from adapter4rec.utils.errors import UserError


@contextmanager
def unfinished_lmdb(folder: Path, plan: Description, items: int) -> Iterator[lmdb.Environment]:
    """Create the LMDB of a build, or reopen it after an interruption.

    Args:
        folder: folder of the LMDB.
        plan: description of the LMDB to build.
        items: maximum number of images.

    Raises:
        UserError: the LMDB is damaged or was started with other options or by another version, or the disk is
            full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An upper bound, which reserves addresses and no space: twice the content, as pages may be half full.
    most = 2 * items * (plan.size**2 * 3 + (1 << 14)) + (1 << 26)
    if (folder / DATA_FILE).exists():  # of an earlier build, perhaps of more items
        most += 2 * (folder / DATA_FILE).stat().st_size
    try:
        # LMDB's own lock is not needed: there is one writer, and no reader before the folder is renamed.
        environment = lmdb.open(str(folder), map_size=most, lock=False, meminit=False, max_dbs=1)
        with closing(require_whole(environment, folder / DATA_FILE)):
            with environment.begin() as transaction:
                raw = transaction.get(DESCRIPTION_KEY)
            if raw is None:
                write(environment, {DESCRIPTION_KEY: plan.to_bytes()})
            else:
                Description.from_bytes(raw, folder).require_same_options(plan, folder)
            environment.open_db(SOURCES_KEY)
            yield environment
    except lmdb.Error as error:
        free = shutil.disk_usage(folder).free / 1e9
        raise UserError(
            f"{folder}: cannot write LMDB: {lmdb_message(error)} ({free:,.1f} GB free on the disk). Images "
            "already written are kept: run the same command again to resume, or remove a damaged LMDB"
        ) from None


def write(
    environment: lmdb.Environment,
    values: Mapping[bytes, bytes | None],
    sources: Mapping[bytes, ImageSource | None] | None = None,
) -> None:
    """Write values by key, and the sources of items, in one transaction; None removes an entry."""
    database = environment.open_db(SOURCES_KEY) if sources else None
    with environment.begin(write=True) as transaction:
        for name, value in values.items():
            if value is None:
                transaction.delete(name)
            else:
                transaction.put(name, value)
        for name, source in (sources or {}).items():
            if source is None:
                transaction.delete(name, db=database)
            else:
                transaction.put(name, source.to_bytes(), db=database)
    # LMDB may not write trailing pages that were used and freed; readers expect the full file.
    file = Path(environment.path()) / DATA_FILE
    os.truncate(file, max(file.stat().st_size, bytes_in_use(environment)))


def finish(environment: lmdb.Environment, description: Description) -> Description:
    """Write the final description, completed by the hash of the content."""
    digest = hashlib.sha256()
    with environment.begin() as transaction:
        for name, value in transaction.cursor():
            if name not in (DESCRIPTION_KEY, SOURCES_KEY):
                digest.update(b"%d %b %b" % (len(name), name, value[:CHECKSUM_BYTES]))
    found = replace(description, content=digest.hexdigest())
    write(environment, {DESCRIPTION_KEY: found.to_bytes()})
    return found
