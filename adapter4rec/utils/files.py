"""Files that appear whole or not at all, and the hashes that identify them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from adapter4rec.utils.errors import UserError

try:
    import fcntl
except ImportError:  # no such locks there: nothing keeps two processes apart
    fcntl = None

REPOSITORY = Path(__file__).resolve().parents[2]


def relative_to_repository(path: Path | str) -> Path:
    """``path`` itself if absolute, else the path from the repository's root."""
    return Path(path) if Path(path).is_absolute() else REPOSITORY / path


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it is flushed and renamed to ``path``, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())  # libraries may have made it unreadable for others
        _flush(aside)
        aside.replace(path)
        _flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; on success it becomes ``path``, else it is removed.

    Where another process has put ``path`` there meanwhile, its folder stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _flush(file)
        try:
            aside.replace(path)
        except OSError:
            if not path.is_dir():
                raise
        _flush(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def locked_file(path: Path, busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock that ends with the process, where the system knows such locks.

    Args:
        path: of the lock; an empty file is made where there is none.
        busy: is called if another process holds it, before it is waited for; it may raise instead.
    """
    with path.open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
        _LOCKED.add(file)
        try:
            yield
        finally:
            _LOCKED.remove(file)


_LOCKED: set[IO[bytes]] = set()


def _close_inherited_locks() -> None:
    """Close a forked child's copies, which would keep the locks when the parent is killed."""
    for file in _LOCKED:
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited_locks)


def reserve(file: IO[bytes], size: int, what: str) -> None:
    """Make a new, open file ``size`` bytes long, and the disk keep them for it.

    Writing to a mapped file for which there is no room would end the process without a word.

    Raises:
        UserError: the disk has no room.
    """
    folder = Path(file.name).parent if isinstance(file.name, str) else None
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError:
        free = f", and the disk has {shutil.disk_usage(folder).free / 2**30:,.1f} GiB left" if folder else ""
        raise UserError(
            f"{what}: {size / 2**30:,.1f} GiB are to be kept there{free}; name a folder on another disk with "
            "--cache_folder"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, required: Collection[str] = ()) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it is not JSON, no object, or lacks one of the ``required`` keys.
    """
    try:
        return json_object(path.read_text(encoding="utf-8"), required)
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error})") from None


def json_object(text: str, required: Collection[str] = ()) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        ValueError: not JSON, no object, or without one of the ``required`` keys.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    missing = [key for key in required if key not in content]
    if missing:
        raise ValueError(f"{', '.join(missing)} not there")
    return content


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; computed once for each state of the file.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _hash_of(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_of(path: Path, inode: int, size: int, changed: int) -> str:
    del inode, size, changed
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
