"""Opening LMDBs for reading: each file is checked first, and opened once per process.

py-lmdb cannot open a file twice in a process, and an environment must not be used after a fork. Environments
are therefore shared within a process while they are referenced, and a forked child closes inherited ones.
"""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from adapter4rec.utils.errors import UserError

DATA_FILE = "data.mdb"
"""Name of the data file in the folder of an LMDB."""


class SharedEnvironment:
    """An LMDB environment that is shared within a process and closed with its last reference.

    Attributes:
        env: read-only environment without locking and read-ahead.
        closed: whether it was closed earlier, after a fork or for a writer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.env = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
            )
        except lmdb.Error as error:
            raise UserError(f"{path}: not an LMDB, or damaged ({lmdb_message(error)})") from None
        self.closed = False
        try:
            require_whole(self.env, path)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Close it for all holders, which reopen it on the next access."""
        self.env.close()
        self.closed = True


_open: WeakValueDictionary[tuple[int, int], SharedEnvironment] = WeakValueDictionary()
"""Open environments by device and inode of the data file."""


def _close_inherited() -> None:
    for shared in list(_open.values()):
        shared.close()
    _open.clear()


os.register_at_fork(after_in_child=_close_inherited)


def opened(path: Path) -> SharedEnvironment:
    """Open the LMDB at ``path`` (file or folder), or return the environment if it is open in this process.

    Raises:
        UserError: the LMDB is missing, truncated or damaged, or not an LMDB.
    """
    file = data_file(path)
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not status.st_size:
        raise UserError(f"{file}: empty file, not an LMDB")
    key = _key(status)
    found = _open.get(key)
    if found is None:
        found = _open[key] = SharedEnvironment(path)
    return found


def close_for_writer(path: Path) -> None:
    """Close the LMDB at ``path`` if it is open in this process, so that a writer can open it."""
    file = data_file(path)
    shared = _open.pop(_key(file.stat()), None)
    if shared is not None:
        shared.close()


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def data_file(path: Path) -> Path:
    """Path of the data file of an LMDB.

    Raises:
        UserError: the file does not exist.
    """
    if path.is_dir():
        if not (path / DATA_FILE).is_file():
            raise UserError(f"{path}: not an LMDB: no {DATA_FILE} in this folder")
        return path / DATA_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such LMDB")
    return path


def require_whole(env: lmdb.Environment, path: Path) -> None:
    """Check that the file is not truncated: accessing a missing page would kill the process with SIGBUS.

    Raises:
        UserError: the file is truncated.
    """
    found, expected = data_file(path).stat().st_size, bytes_in_use(env)
    if found < expected:
        raise UserError(
            f"{path}: truncated file: {found:,} bytes, expected {expected:,}; "
            "copy it again, or remove it and build it again"
        )


def bytes_in_use(env: lmdb.Environment) -> int:
    """Size in bytes up to the end of the last used page."""
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def lmdb_message(error: lmdb.Error) -> str:
    """The message of an LMDB error, without the path."""
    return str(error).rpartition(": ")[2]
