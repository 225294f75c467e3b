"""Writing the image database: one writer at a time, in transactions that a kill leaves whole."""

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
    lmdb_words,
    require_whole,
)
from adapter4rec.data.images.records import Conversion, DamagedRecordError, unpack_header
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import whole_file

LOCK_FILE = "build.lock"

_SMALLEST_MAP = 1 << 20
_RECORDS_A_TRANSACTION = 256
_BYTES_A_TRANSACTION = 64 << 20


class DatabaseWriter:
    """Builds the database that a plan describes, or goes on building it.

    A context manager: it holds a lock while it is entered. Before :meth:`begin` it makes nothing else.

    Args:
        folder: of the database.
        plan: what is to be built.
    """

    def __init__(self, folder: Path, plan: Description) -> None:
        self.folder = folder
        self.plan = plan
        self.finished: Description | None = None
        """The description of the database where it is complete."""
        self._env: lmdb.Environment | None = None
        self._lock: int | None = None
        self._waiting: list[tuple[bytes, bytes]] = []
        self._waiting_bytes = 0

    def __enter__(self) -> DatabaseWriter:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: a file, and a folder is to be made; name another with --into")
        self._lock = self._locked()
        try:
            self._look_at_what_is_there()
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
        """Bytes of the database's file."""
        return (self.folder / DATA_FILE).stat().st_size

    def begin(self) -> set[bytes]:
        """Make the database where it is not there yet; the names of the items that it has."""
        env = self._env = self._env or self._opened()
        with self._explained(), env.begin() as transaction:
            there = set(transaction.cursor().iternext(keys=True, values=False))
        if DESCRIPTION_KEY not in there:
            self._write([(DESCRIPTION_KEY, self.plan.to_bytes())])
        return there - {DESCRIPTION_KEY}

    def put(self, name: bytes, value: bytes) -> None:
        """Store an item's value: soon, with others, or at :meth:`flush`."""
        self._waiting.append((name, value))
        self._waiting_bytes += len(value)
        if len(self._waiting) >= _RECORDS_A_TRANSACTION or self._waiting_bytes >= _BYTES_A_TRANSACTION:
            self.flush()

    def flush(self) -> None:
        """Store what waits."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting:
            self._write(waiting)

    def finish(self, names: Sequence[bytes]) -> Description:
        """Declare the database complete: the items of the list that it lacks are left out for good."""
        self.flush()
        self.finished = self._tallied(names)
        self._write([(DESCRIPTION_KEY, self.finished.to_bytes())])
        return self.finished

    def _tallied(self, names: Sequence[bytes]) -> Description:
        """What the records' headers say, so that a build in several goes counts like one in one go."""
        assert self._env is not None
        digest = hashlib.sha256()
        counts: Counter[Conversion] = Counter()
        left_out = []
        with self._explained(), self._env.begin(buffers=True) as transaction:
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
        """Descriptor of the lock file, which its holder removes at the end and a kill leaves behind."""
        path = self.folder / LOCK_FILE
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise UserError(f"{self.folder}: another build is writing there; wait for its end") from None
            with suppress(FileNotFoundError):  # where it was removed between opening and locking
                if os.path.samestat(path.stat(), os.fstat(lock)):
                    return lock
            os.close(lock)

    def _look_at_what_is_there(self) -> None:
        others = {path.name for path in self.folder.iterdir()} - {LOCK_FILE, "lock.mdb"}
        if DATA_FILE not in others:
            if others:
                raise UserError(
                    f"{self.folder}: other things lie there, like {min(others)}; "
                    "name a folder with --into that is to be made"
                )
            return
        self._env = self._opened()
        require_whole(self._env, self.folder)
        with self._explained(), self._env.begin() as transaction:
            raw = transaction.get(DESCRIPTION_KEY)
        if raw is None:
            if self._env.stat()["entries"]:
                raise UserError(f"{self.folder}: another LMDB lies there; name another folder with --into")
            return
        try:
            found = Description.from_bytes(raw)
        except ValueError as error:
            raise UserError(
                f"{self.folder}: the description of the database cannot be read ({error}); remove the "
                "database, or choose another folder with --into"
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
        there = 0
        if file.exists():
            there = file.stat().st_size
            close_for_writer(self.folder)
        with self._explained():
            # Locking is done here; one writer needs no other, and readers refuse what is not complete.
            return lmdb.open(
                str(self.folder), map_size=max(_SMALLEST_MAP, 2 * there), lock=False, meminit=False
            )

    def _write(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        """Store values in one transaction, in a larger map where this one is full."""
        assert self._env is not None
        with self._explained():
            while True:
                try:
                    with self._env.begin(write=True) as transaction:
                        for key, value in values:
                            transaction.put(key, value)
                    break
                except lmdb.MapFullError:
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
            # LMDB need not write pages at the end that it has used and freed again; readers want them there.
            if self.size_on_disk < bytes_in_use(self._env):
                os.truncate(self.folder / DATA_FILE, bytes_in_use(self._env))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what goes wrong with the database into words."""
        go_on = "what was written before is kept; run the same command again to resume"
        try:
            yield
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError):
            raise UserError(f"{self.folder}: the database there is damaged; remove it") from None
        except DamagedRecordError as error:
            raise UserError(f"{self.folder}: {error}; remove the database and build it again") from None
        except (lmdb.Error, OSError) as error:
            if _is_full_disk(error, self.folder):
                raise UserError(f"{self.folder}: the disk is full. Make room; {go_on}") from None
            words = lmdb_words(error) if isinstance(error, lmdb.Error) else error.strerror
            raise UserError(f"{self.folder}: it cannot be written ({words}); {go_on}") from None

    def _close(self) -> None:
        """Close the database, give the lock back, and leave no empty folder behind."""
        if self._env is not None:
            self._env.close()
            self._env = None
        if self._lock is not None:
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        with suppress(OSError):  # only an empty folder goes
            self.folder.rmdir()


def _is_full_disk(error: lmdb.Error | OSError, folder: Path) -> bool:
    if isinstance(error, lmdb.DiskError) or getattr(error, "errno", None) == errno.ENOSPC:
        return True
    # LMDB calls a write that the disk took in part an input/output error.
    return shutil.disk_usage(folder).free < _SMALLEST_MAP


def left_out_file(folder: Path) -> Path:
    """The file beside a database that says which items have no image, and why."""
    return folder.with_name(folder.name.removesuffix(".lmdb") + ".left_out.tsv")


def write_left_out(path: Path, reasons: Mapping[bytes, str]) -> None:
    """Write ``name<TAB>reason`` lines; without any, remove the file of an earlier build."""
    if not reasons:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as aside:
        aside.write_bytes(
            b"".join(b"%b\t%b\n" % (name, why.encode("utf-8", "replace")) for name, why in reasons.items())
        )
