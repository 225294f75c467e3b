"""Opening LMDBs for reading.

py-lmdb opens a file only once in a process, and an environment must not be used after a fork. Environments
are therefore kept open and shared within a process, and a forked child opens its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import lmdb

from adapter4rec.utils.errors import UserError

DATA_FILE = "data.mdb"
"""Name of the data file in the folder of an LMDB."""


_open: dict[tuple[Path, int], lmdb.Environment] = {}
"""Open environments by path and inode of the data file."""


def _close_inherited() -> None:
    for environment in _open.values():
        environment.close()
    _open.clear()


os.register_at_fork(after_in_child=_close_inherited)


def opened(path: Path) -> lmdb.Environment:
    """The LMDB at ``path`` (file or folder), which is opened once in a process.

    Raises:
        UserError: the LMDB is missing, truncated or damaged, or not an LMDB.
    """
    file = path / DATA_FILE if path.is_dir() else path
    try:
        key = file.resolve(), file.stat().st_ino
        if key not in _open:
            environment = lmdb.open(
                str(file), subdir=False, readonly=True, lock=False, readahead=False, meminit=False
            )
            _open[key] = require_whole(environment, file)
    except OSError as error:
        raise UserError(f"{file}: no such LMDB ({error.strerror})") from None
    except lmdb.Error as error:
        raise UserError(f"{path}: not an LMDB, or damaged ({lmdb_message(error)})") from None
    return _open[key]


def require_whole(environment: lmdb.Environment, file: Path) -> lmdb.Environment:
    """Check that a data file has all used pages: access to a missing one would kill the process with SIGBUS.

    Raises:
        UserError: truncated file. The environment is closed.
    """
    found, expected = file.stat().st_size, bytes_in_use(environment)
    if found < expected:
        environment.close()
        raise UserError(
            f"{file}: truncated file: {found:,} bytes, expected {expected:,}; remove the LMDB and build it "
            "again"
        )
    return environment


def bytes_in_use(environment: lmdb.Environment) -> int:
    """Size of the data file up to the end of the last used page."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def lmdb_message(error: lmdb.Error) -> str:
    """The message of an LMDB error, without the path."""
    return str(error).rpartition(": ")[2]
