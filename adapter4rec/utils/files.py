"""Atomic file writes, file locks, regular files, JSON files and file hashes."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import json_text, printable

_MOST_HEADER_BYTES = 100_000_000  # as in the safetensors library
_PARENT = Path(__file__).resolve().parents[2]
CHECKOUT = (_PARENT / "Downstream" / "Text" / "train.py").is_file()
"""Whether the package is used in a checkout, not installed alone."""
REPOSITORY = _PARENT if CHECKOUT else Path.cwd()
"""The checkout; the current folder where the package alone is installed."""
CACHES = REPOSITORY if CHECKOUT else user_cache_path("adapter4rec")
"""Folder of ``cache/`` and ``pretrained_models/``: the checkout, or the user's cache of the platform."""
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "FIFO",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}
_HASH_LENGTH = 64


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _complete(file: Path) -> None:
    """Give a written file the permissions of a new one, and flush it to the disk.

    A hard link to another file shares the permissions of that file, and keeps them.
    """
    if file.stat().st_nlink == 1:
        os.umask(mask := os.umask(0))  # the only way to read it
        file.chmod(0o666 & ~mask)  # some libraries create files with mode 600
    _flush(file)


def files_under(folder: Path, is_wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Path]:
    """All files below a folder, in a fixed order. Symbolic links to folders are followed, each once.

    Args:
        folder: the folder.
        is_wanted: whether to enter a subfolder of this name.
    """
    visited = set()  # a symbolic link may lead to a folder twice, or to a parent of its own
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(filter(is_wanted, folders))
        yield from (path for name in sorted(names) if (path := Path(parent, name)).exists())


@contextmanager
def atomic_file(path: Path, *, clean: bool = True) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path that is flushed and renamed to ``path`` on success.

    On error the temporary file is removed.

    Args:
        path: the file.
        clean: whether to remove also the temporary files of processes that were killed. This lists the
            folder, which takes long for each of many files.

    Raises:
        UserError: ``path`` is a folder, FIFO, device or socket, or a link to one; it is not replaced.
    """
    if path.exists():
        require_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if clean:
        remove_abandoned(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _in_use(temporary, temporary.touch):
            yield temporary
            _complete(temporary)
            temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a folder atomically: yield a temporary folder that is renamed to ``path`` on success.

    On error the temporary folder is removed, like those of processes that were killed. If another process has
    created ``path`` in the meantime, that folder is kept.

    Raises:
        UserError: ``path`` is something else than a folder.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path}: already exists, and is not a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _in_use(temporary, temporary.mkdir):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _complete(file)
            try:
                temporary.replace(path)
            except OSError:
                if not path.is_dir():
                    raise
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _in_use(temporary: Path, make: Callable[[], None]) -> Iterator[None]:
    """Make and lock a temporary file or folder, so that no other process takes it for abandoned.

    The operating system releases the lock when the process ends.
    """
    with ExitStack() as opened:
        while True:
            make()
            with suppress(FileNotFoundError):  # removed by another process before it was locked
                descriptor = os.open(temporary, os.O_RDONLY)
                opened.callback(os.close, descriptor)
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(descriptor), temporary.stat()):
                    break
        yield


def remove_abandoned(folder: Path, name: str = "*") -> None:
    """Remove what interrupted calls of :func:`atomic_file` and :func:`atomic_folder` have left.

    Args:
        folder: folder that they wrote into.
        name: name of the file or folder that they wrote; by default any.
    """
    pattern = f".{name if name == '*' else glob.escape(name)}.*.part"
    for path in folder.glob(pattern):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is written
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """A path for libraries that accept UTF-8 only: a temporary link if a folder or file has another name.

    A file that does not exist may be created.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link, name = Path(folder, "link"), printable(path.name)
            to_file = name != path.name and path.exists()
            link.symlink_to(path.absolute() if to_file else path.absolute().parent)
            yield link if to_file else link / name
            if not to_file and name != path.name:
                (path.parent / name).replace(path)
    else:
        yield path


_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems without locks, as Lustre and NFS may be."""


@contextmanager
def locked_file(path: Path, busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock. The operating system releases it when the process ends.

    Does nothing on file systems without locks.

    Args:
        path: lock file; created if missing, emptied otherwise.
        busy: called before waiting if another process holds the lock. It may raise to avoid the wait.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            busy()
            lock.acquire()
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")


def require_regular(path: Path) -> int:
    """Check that a path is a regular file, or a link to one. Others may have no end, or block.

    Returns:
        Its size, in bytes.

    Raises:
        OSError: the file does not exist, or cannot be accessed.
        UserError: a folder, FIFO, device or socket.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
        raise UserError(f"{path}: expected a file, found a {kind}")
    return found.st_size


def read_regular(path: Path, most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes.

    Raises:
        OSError: the file cannot be read.
        UserError: not a regular file, or larger.
    """
    if require_regular(path) <= most:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) <= most:
            return content
    raise UserError(f"{path}: larger than {most:,} bytes, the maximum for this kind of file")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Cached until the file changes.

    Raises:
        OSError: the file cannot be read.
        UserError: not a regular file.
    """
    require_regular(path)
    state = path.stat()
    return _hash_of(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns)


def tensor_hash(path: Path) -> str:
    """SHA-256 of the tensors of a safetensors file, without its metadata; of the whole file if it is none.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _tensor_hash_of(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns)


def write_hash(path: Path, content: Path) -> None:
    """Write the SHA-256 of ``content``, which will be renamed to ``path``, into a file beside ``path``."""
    with atomic_file(path.with_suffix(".sha256")) as aside:
        aside.write_text(_digest(content), encoding="ascii")


def is_intact(path: Path) -> bool:
    """Whether a file exists and matches the SHA-256 beside it (see :func:`write_hash`)."""
    try:
        return read_regular(path.with_suffix(".sha256"), _HASH_LENGTH).decode("ascii") == _digest(path)
    except (FileNotFoundError, UnicodeDecodeError, UserError):
        return False


@lru_cache(maxsize=256)
def _hash_of(path: Path, inode: int, size: int, changed: int) -> str:
    del inode, size, changed
    return _digest(path)


@lru_cache(maxsize=256)
def _tensor_hash_of(path: Path, inode: int, size: int, changed: int) -> str:
    require_regular(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if not 0 < length <= min(size - 8, _MOST_HEADER_BYTES):
                raise ValueError
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError
        except (ValueError, RecursionError):
            return _hash_of(path, inode, size, changed)
    header.pop("__metadata__", None)
    return _digest(path, json.dumps(header, sort_keys=True), 8 + length)


def _digest(path: Path, before: str = "", start: int = 0) -> str:
    require_regular(path)
    digest = hashlib.sha256(before.encode())
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
