"""A check of an LMDB's own pages, in a child process.

LMDB trusts its file: a flipped bit in a page header or an entry may end the process that reads it, by SIGBUS,
SIGSEGV or a failed assertion, without a message. Here this ends a child instead.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import Any

import lmdb

from adapter4rec.data.images.description import SOURCES_KEY
from adapter4rec.utils.errors import UserError

_SECONDS = 600
_TOUCHED = 300_000
"""Most entries whose values are touched; of larger databases, only the pages of names are read."""


def require_sound(file: Path) -> None:
    """Read all names of an LMDB, and the ends of its values, in a forked process.

    Does nothing on systems without ``fork``.

    Args:
        file: the data file, which this process must not have open.

    Raises:
        UserError: the database is damaged; the message names it.
    """
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        code = 1
        try:
            faulthandler.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_SECONDS)  # damaged pages may refer to each other in a circle
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LMDB prints failed assertions
            code = _read_all(file)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return
    how = f"reading it ends with {signal.Signals(-code).name}" if code < 0 else "its pages are inconsistent"
    raise UserError(f"{file}: damaged LMDB: {how}; remove the LMDB and build it again")


def _read_all(file: Path) -> int:
    """0 if every entry can be read, else 1."""
    with (
        lmdb.open(
            str(file), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=1
        ) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        main = environment.open_db(None, transaction)
        databases = [main]
        if transaction.get(SOURCES_KEY) is not None:
            databases.append(environment.open_db(SOURCES_KEY, transaction, create=False))
        return max(_read_entries(transaction, database) for database in databases)


def _read_entries(transaction: lmdb.Transaction, database: Any) -> int:
    """0 if every entry of a database can be read; else 1."""
    expected = transaction.stat(database)["entries"]
    found = 0
    for name, value in transaction.cursor(database):
        found += 1
        if found > expected or transaction.get(name, db=database) is None:
            return 1
        if expected <= _TOUCHED and len(value):
            value[0], value[-1]
    return int(found != expected)
