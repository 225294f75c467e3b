"""Writing the LMDB of item images: a single writer, atomic transactions."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import lmdb

from adapter4rec.data.images.description import DESCRIPTION_KEY, Description, State
from adapter4rec.data.images.opening import (
    DATA_FILE,
    bytes_in_use,
    close_for_writer,
    lmdb_message,
    require_whole,
)
from adapter4rec.data.images.records import Conversion, DamagedRecordError, unpack_header
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file

LOCK_FILE = "build.lock"

_SMALLEST_MAP = 1 << 20
_RECORDS_PER_TRANSACTION = 256
_BYTES_PER_TRANSACTION = 64 << 20


class DatabaseWriter:
    """Builds an LMDB, or resumes an interrupted build.

    A context manager that holds a lock on the folder. Nothing else is created before :meth:`begin`.

    Args:
        folder: folder of the LMDB.
        plan: description of the LMDB to build.
    """

    def __init__(self, folder: Path, plan: Description) -> None:
        self.folder = folder
        self.plan = plan
        self.finished: Description | None = None
        """Description of the LMDB if it is complete, else None."""
        self._env: lmdb.Environment | None = None
        self._lock: int | None = None
        self._buffer: list[tuple[bytes, bytes]] = []
        self._buffer_bytes = 0

    def __enter__(self) -> DatabaseWriter:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: not a folder; choose another folder with --into")
        self._lock = self._locked()
        try:
            self._check_folder()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def size_on_disk(self) -> int:
        """Size of the data file in bytes."""
        return (self.folder / DATA_FILE).stat().st_size

    def begin(self) -> set[bytes]:
        """Create the LMDB if it does not exist; returns the names of the items already stored."""
        env = self._env = self._env or self._opened()
        with self._user_errors(), env.begin() as transaction:
            keys = set(transaction.cursor().iternext(keys=True, values=False))
        if DESCRIPTION_KEY not in keys:
            self._write([(DESCRIPTION_KEY, self.plan.to_bytes())])
        return keys - {DESCRIPTION_KEY}

    def put(self, name: bytes, value: bytes) -> None:
        """Add an item to the write buffer; the buffer is written when it is full, and by :meth:`flush`."""
        self._buffer.append((name, value))
        self._buffer_bytes += len(value)
        if len(self._buffer) >= _RECORDS_PER_TRANSACTION or self._buffer_bytes >= _BYTES_PER_TRANSACTION:
            self.flush()

    def flush(self) -> None:
        """Write the buffer in one transaction."""
        buffer, self._buffer, self._buffer_bytes = self._buffer, [], 0
        if buffer:
            self._write(buffer)

    def finish(self, names: Sequence[bytes]) -> Description:
        """Mark the LMDB as complete; items of the list without an image are recorded as left out."""
        self.flush()
        self.finished = self._final_description(names)
        self._write([(DESCRIPTION_KEY, self.finished.to_bytes())])
        return self.finished

    def _final_description(self, names: Sequence[bytes]) -> Description:
        """Compute the final description from the stored records, including those of interrupted builds."""
        assert self._env is not None
        digest = hashlib.sha256()
        counts: Counter[Conversion] = Counter()
        left_out = []
        with self._user_errors(), self._env.begin(buffers=True) as transaction:
            for name in names:
                value = transaction.get(name)
                if value is None:
                    left_out.append(name)
                    continue
                record, checksum = unpack_header(name, value)
                counts.update(kind for kind in Conversion if kind in record.conversions)
                digest.update(b"%d %b %d\n" % (len(name), name, checksum))
        return replace(
            self.plan,
            state=State.COMPLETE,
            images=len(names) - len(left_out),
            left_out=tuple(left_out),
            conversions={str(kind.name).lower(): counts[kind] for kind in Conversion},
            content=digest.hexdigest(),
        )

    def _locked(self) -> int:
        """Acquire the lock; returns the descriptor of the lock file, which is removed on exit."""
        path = self.folder / LOCK_FILE
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise UserError(
                    f"{self.folder}: in use by another build; wait until it has finished"
                ) from None
            with suppress(FileNotFoundError):  # removed by another process between opening and locking
                if os.path.samestat(path.stat(), os.fstat(lock)):
                    return lock
            os.close(lock)

    def _check_folder(self) -> None:
        others = {path.name for path in self.folder.iterdir()} - {LOCK_FILE, "lock.mdb"}
        if DATA_FILE not in others:
            if others:
                raise UserError(
                    f"{self.folder}: the folder contains other files ({min(others)}); choose a new folder "
                    "with --into"
                )
            return
        self._env = self._opened()
        require_whole(self._env, self.folder)
        with self._user_errors(), self._env.begin() as transaction:
            raw = transaction.get(DESCRIPTION_KEY)
        if raw is None:
            if self._env.stat()["entries"]:
                raise UserError(f"{self.folder}: contains another LMDB; choose another folder with --into")
            return
        try:
            found = Description.from_bytes(raw)
        except ValueError as error:
            raise UserError(
                f"{self.folder}: cannot read the description of the LMDB ({error}); remove it, or choose "
                "another folder with --into"
            ) from None
        differing = found.differing_options(self.plan, self.folder.resolve().parent)
        if differing:
            raise UserError(
                f"{self.folder}: built with other options: {', '.join(differing)}. Remove it, or choose "
                "another folder with --into"
            )
        if found.state is State.COMPLETE:
            self.finished = found

    def _opened(self) -> lmdb.Environment:
        file = self.folder / DATA_FILE
        size = 0
        if file.exists():
            size = file.stat().st_size
            close_for_writer(self.folder)
        with self._user_errors():
            # LMDB's own lock is not needed: there is one writer, and readers reject an incomplete LMDB.
            return lmdb.open(
                str(self.folder), map_size=max(_SMALLEST_MAP, 2 * size), lock=False, meminit=False
            )

    def _write(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        """Write values in one transaction; the map is enlarged if it is full."""
        assert self._env is not None
        with self._user_errors():
            while True:
                try:
                    with self._env.begin(write=True) as transaction:
                        for key, value in values:
                            transaction.put(key, value)
                    break
                except lmdb.MapFullError:
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
            # LMDB may not write trailing pages that were used and freed; readers expect the full file.
            if self.size_on_disk < bytes_in_use(self._env):
                os.truncate(self.folder / DATA_FILE, bytes_in_use(self._env))

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        """Convert LMDB and file errors to user errors."""
        resume = "images already written are kept; run the same command again to resume"
        try:
            yield
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError):
            raise UserError(f"{self.folder}: damaged LMDB; remove it and build it again") from None
        except DamagedRecordError as error:
            raise UserError(f"{self.folder}: {error}; remove the LMDB and build it again") from None
        except (lmdb.Error, OSError) as error:
            if _is_full_disk(error, self.folder):
                raise UserError(f"{self.folder}: the disk is full. Free some space; {resume}") from None
            words = lmdb_message(error) if isinstance(error, lmdb.Error) else error.strerror
            raise UserError(f"{self.folder}: cannot write LMDB ({words}); {resume}") from None

    def _close(self) -> None:
        """Close the LMDB, release the lock, and remove the folder if it is empty."""
        if self._env is not None:
            self._env.close()
            self._env = None
        if self._lock is not None:
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        with suppress(OSError):  # the folder is not empty
            self.folder.rmdir()


def _is_full_disk(error: lmdb.Error | OSError, folder: Path) -> bool:
    if isinstance(error, lmdb.DiskError) or getattr(error, "errno", None) == errno.ENOSPC:
        return True
    # LMDB reports a partial write as an input/output error.
    return shutil.disk_usage(folder).free < _SMALLEST_MAP


def left_out_file(folder: Path) -> Path:
    """Path of the file next to an LMDB that lists the items without an image, with reasons."""
    return folder.with_name(folder.name.removesuffix(".lmdb") + ".left_out.tsv")


def write_left_out(path: Path, reasons: Mapping[bytes, str]) -> None:
    """Write ``name<TAB>reason`` lines; if there are none, remove the file of an earlier build."""
    if not reasons:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(
            b"".join(b"%b\t%b\n" % (name, why.encode("utf-8", "replace")) for name, why in reasons.items())
        )
