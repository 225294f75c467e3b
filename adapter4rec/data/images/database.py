"""The LMDB of item images built by ``build_lmdb_hm.py``: its format, and reading it.

A value is the CRC-32 of the item's name and the pixels (4 bytes, little-endian), followed by the pixels,
uint8 ``[size, size, 3]``, RGB, row-major. The description is JSON under a reserved key. A database inside the
LMDB records, for each item, the file that its image was made from, or why it has none.

py-lmdb opens a file only once in a process, and an environment must not be used after a fork. Environments
are therefore kept open and shared within a process, and a forked child opens its own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from multiprocessing import parent_process
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from adapter4rec.data.images.description import (
    BUILDER,
    DESCRIPTION_KEY,
    SOURCES_KEY,
    Buffer,
    Description,
    ImageSource,
    as_shell_word,
)
from adapter4rec.data.images.soundness import require_sound
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import require_regular

PixelArray = NDArray[np.uint8]

CHECKSUM_BYTES = 4

_EXAMPLES = 5

DATA_FILE = "data.mdb"
"""Name of the data file in the folder of an LMDB."""


_open: dict[tuple[Path, int], lmdb.Environment] = {}
"""Open environments by path and inode of the data file."""


def pack(name: bytes, pixels: bytes) -> bytes:
    """The value of an image under the key ``name``."""
    return _checksum(name, pixels) + pixels


def unpack(name: bytes, value: Buffer, size: int) -> PixelArray:
    """The image of the key ``name``, a view of ``value``, uint8 ``[size, size, 3]``.

    Raises:
        ValueError: damaged value, value of another item, or other size.
    """
    pixels = value[CHECKSUM_BYTES:]
    if value[:CHECKSUM_BYTES] != _checksum(name, pixels):
        raise ValueError(f"the image of item {shown(name)} is damaged: checksum mismatch")
    return np.frombuffer(pixels, np.uint8).reshape(size, size, 3)


def _checksum(name: bytes, pixels: Buffer) -> bytes:
    return zlib.crc32(pixels, zlib.crc32(name)).to_bytes(CHECKSUM_BYTES, "little")


def shown(name: bytes) -> str:
    """An item name, quoted for messages."""
    return repr(name.decode("utf-8", "replace"))


def examples(names: Iterable[bytes]) -> str:
    """The first of several item names or paths, for messages."""
    first = [*islice(names, _EXAMPLES + 1)]
    return ", ".join([*map(shown, first[:_EXAMPLES]), "…"][: len(first)])


def _close_inherited() -> None:
    for environment in _open.values():
        environment.close()
    _open.clear()


os.register_at_fork(after_in_child=_close_inherited)


def _environment(file: Path) -> lmdb.Environment:
    return lmdb.open(
        str(file), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_dbs=1
    )


def opened(path: Path) -> lmdb.Environment:
    """The LMDB at ``path`` (file or folder), which is opened once in a process.

    Raises:
        UserError: the LMDB is missing, truncated or damaged, or not an LMDB.
    """
    file = path / DATA_FILE if path.is_dir() else path
    try:
        require_regular(file)
        key = file.resolve(), file.stat().st_ino
        if key not in _open:
            if parent_process() is None:  # for workers, the main process has checked it
                with _environment(file) as environment:
                    require_whole(environment, file)
                require_sound(file)
            _open[key] = require_whole(_environment(file), file)
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


@contextmanager
def reading(path: Path) -> Iterator[lmdb.Transaction]:
    """A read transaction of the LMDB at ``path``; values are memoryviews. Damage becomes a ``UserError``."""
    try:
        with opened(path).begin(buffers=True) as transaction:
            yield transaction
    except (lmdb.Error, ValueError) as error:
        reason = lmdb_message(error) if isinstance(error, lmdb.Error) else error
        raise UserError(f"{path}: {reason}; remove the LMDB and build it again") from None


def stored_names(transaction: lmdb.Transaction) -> set[bytes]:
    """Names of the items with an image. Only keys are read."""
    names = {*map(bytes, transaction.cursor().iternext(keys=True, values=False))}
    return names - {DESCRIPTION_KEY, SOURCES_KEY}


def sources_in(environment: lmdb.Environment) -> dict[bytes, ImageSource]:
    """The source of each item, also of those without an image.

    Raises:
        UserError: damaged.
    """
    database = environment.open_db(SOURCES_KEY, create=False)
    try:
        with environment.begin(database) as transaction:
            return {bytes(name): ImageSource.from_bytes(raw) for name, raw in transaction.cursor()}
    except ValueError as error:
        raise UserError(
            f"{environment.path()}: damaged files of images ({error}); remove the LMDB and build it again"
        ) from None


class ImageDatabase:
    """Images by item name, read from an LMDB.

    Instances can be pickled and used after a fork. The checksum of an image is verified at each read.

    Args:
        path: folder (or file) of the LMDB, which is opened at the first access.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def description(self) -> Description:
        """Description of the LMDB.

        Raises:
            UserError: not an image LMDB.
        """
        return Description.from_bytes(self._raw_description, self.path)

    @cached_property
    def _raw_description(self) -> bytes:
        if not self.path.exists():
            raise UserError(
                f"{self.path}: no such LMDB or folder of images, or its build is not complete; "
                f"--images names a folder of images, or an LMDB that {BUILDER} has built"
            )
        with reading(self.path) as transaction:
            raw = transaction.get(DESCRIPTION_KEY)
            if raw is None:
                new = self.path.with_name(f"{self.path.stem}_converted.lmdb")
                raise UserError(
                    f"{self.path}: not built by {BUILDER}; convert an LMDB of the released scripts with\n  "
                    f"{BUILDER} --convert {as_shell_word(self.path)} --items ITEMS_TSV --into "
                    f"{as_shell_word(new)}"
                )
            return bytes(raw)

    def names(self) -> set[bytes]:
        """Names of the items with an image. Only keys are read.

        Raises:
            UserError: damaged LMDB.
        """
        with reading(self.path) as transaction:
            return stored_names(transaction)

    def faults(self) -> dict[bytes, str]:
        """Why items have no image, by name.

        Raises:
            UserError: damaged LMDB.
        """
        with reading(self.path):
            found = sources_in(opened(self.path))
        return {name: source.fault for name, source in found.items() if source.fault}

    def read(self, names: Sequence[bytes]) -> PixelArray:
        """The images of ``names``, uint8 ``[len(names), size, size, 3]``, RGB.

        Raises:
            UserError: an item has no image, an image is damaged, the LMDB cannot be read, or another build
                has changed it.
        """
        size = self.description.size
        images = np.empty((len(names), size, size, 3), np.uint8)
        with reading(self.path) as transaction:
            if transaction.get(DESCRIPTION_KEY) != self._raw_description:
                raise UserError(
                    f"{self.path}: another build has changed the images since this process opened them; "
                    "start it again"
                )
            for row, name in enumerate(names):
                value = transaction.get(name)
                if value is None:
                    raise UserError(f"{self.path}: no image of item {shown(name)}")
                images[row] = unpack(name, value, size)
        return images

    def without_image(self, names: Sequence[bytes], items: Path) -> set[bytes]:
        """Items that were left out when the LMDB was built.

        Args:
            names: names of items; all must be in the item list that the LMDB was built from.
            items: path of the item list, for error messages.

        Raises:
            UserError: the LMDB was built from another item list, or cannot be read.
        """
        left_out = self.description.left_out
        lacking = set(names) - self.names()
        unknown = lacking.difference(left_out)
        if unknown:
            first = next(name for name in names if name in unknown)
            raise UserError(
                f"{self.path}: built from another item list than {items}: {len(unknown):,} items are "
                f"missing, the first is {shown(first)}; bring it up to date with\n  "
                f"{self.description.command(self.path, items=items)}"
            )
        return lacking

    def require_size(self, size: int, items: Path | None = None) -> None:
        """Check that the images are of ``size`` x ``size``.

        Args:
            size: height and width.
            items: path of the item list, for the error message.

        Raises:
            UserError: they have another size, or the LMDB cannot be read.
        """
        found = self.description.size
        if found != size:
            another = self.path.with_name(f"{self.path.stem}_{size}.lmdb")
            command = self.description.command(another, items=items or "ITEMS_TSV", size=size)
            raise UserError(
                f"{self.path}: images are {found} x {found}, but the image encoder expects {size} x {size}; "
                f"build another LMDB with\n  {command}"
            )
