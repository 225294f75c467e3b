"""Opening an LMDB to read it: what is wrong is found first, and each process has each file open once.

py-lmdb refuses to open a file twice in one process, and an environment must not be used across a fork.
Environments are therefore shared within a process as long as anybody holds them, and a forked process closes
those that it inherited.
"""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from adapter4rec.utils.errors import UserError

DATA_FILE = "data.mdb"
"""Name of the data in an LMDB that is a folder."""


class SharedEnvironment:
    """An LMDB that is open for reading in this process, closed when the last holder lets it go.

    Attributes:
        env: the environment: read-only, without lock, without read-ahead.
        closed: whether it was closed before: in a process that inherited it, or for a writer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.env = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
            )
        except lmdb.Error as error:
            raise UserError(f"{path}: not an LMDB, or a damaged one ({lmdb_words(error)})") from None
        self.closed = False
        try:
            require_whole(self.env, path)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Close it for all holders; they ask for it anew when they need it."""
        self.env.close()
        self.closed = True


_open: WeakValueDictionary[tuple[int, int], SharedEnvironment] = WeakValueDictionary()
"""By device and inode of the data file."""


def _close_inherited() -> None:
    for shared in list(_open.values()):
        shared.close()
    _open.clear()


os.register_at_fork(after_in_child=_close_inherited)


def opened(path: Path) -> SharedEnvironment:
    """The LMDB at ``path``, a file or a folder, open in this process.

    Raises:
        UserError: it is not there, not an LMDB, or shorter than it says.
    """
    file = data_file(path)
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not status.st_size:
        raise UserError(f"{file}: the file is empty, not an LMDB")
    key = _key(status)
    found = _open.get(key)
    if found is None:
        found = _open[key] = SharedEnvironment(path)
    return found


def close_for_writer(path: Path) -> None:
    """Close the LMDB at ``path``, if this process has it open: it can have it open only once."""
    file = data_file(path)
    shared = _open.pop(_key(file.stat()), None)
    if shared is not None:
        shared.close()


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def data_file(path: Path) -> Path:
    """The file that holds the data of an LMDB.

    Raises:
        UserError: there is none.
    """
    if path.is_dir():
        if not (path / DATA_FILE).is_file():
            raise UserError(f"{path}: no LMDB lies in this folder: there is no {DATA_FILE}")
        return path / DATA_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such LMDB")
    return path


def require_whole(env: lmdb.Environment, path: Path) -> None:
    """Check that the file has all of its pages: touching one that is not there ends the process.

    Raises:
        UserError: it is shorter than it says.
    """
    found, expected = data_file(path).stat().st_size, bytes_in_use(env)
    if found < expected:
        raise UserError(
            f"{path}: the file is cut off: {found:,} bytes, and it should have {expected:,}; "
            "copy it again, or remove it and build it anew"
        )


def bytes_in_use(env: lmdb.Environment) -> int:
    """Bytes up to the end of the last page."""
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def lmdb_words(error: lmdb.Error) -> str:
    """What LMDB says, without the path that it may begin with."""
    return str(error).rpartition(": ")[2]
