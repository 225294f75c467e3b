"""A table on disk that is computed block by block: what an interrupted computation has done is kept."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.errors import UserError
from adapter4rec.files import write_json

_ROWS, _CHECKSUMS = "rows.bin", "blocks.json"


@dataclass(frozen=True)
class Table:
    """What a table is like.

    Attributes:
        shape: rows and what each holds.
        dtype: of its numbers.
        blocks: the rows ``first``…``last - 1`` that are computed together, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def computed_table(
    place: Path, table: Table, compute: Callable[[int], np.ndarray], say: Callable[[str], None] = print
) -> np.memmap:
    """The table in the folder ``place``, memory-mapped; what is missing or damaged is computed.

    Args:
        place: made where it is not there; its name says what the table was computed from.
        table: its shape.
        compute: gives the rows of a block by the block's number.
        say: is told what happens.

    Raises:
        UserError: the disk has no room for the table.
    """
    place.mkdir(parents=True, exist_ok=True)
    path, noted = place / _ROWS, place / _CHECKSUMS
    checksums = _noted(noted, len(table.blocks))
    if not path.exists() or path.stat().st_size != table.size:
        _make(path, table)
    rows = np.memmap(path, table.dtype, "r+", shape=table.shape)
    missing = [
        number
        for number, (first, last) in enumerate(table.blocks)
        if checksums[number] is None or checksums[number] != _checksum(rows[first:last])
    ]
    if missing:
        done = len(table.blocks) - len(missing)
        going_on = f", {100 * done // len(table.blocks)} % is there" if done else ""
        say(f"computing {table.size / 2**20:,.1f} MiB of states in {place}{going_on}")
    for number in missing:
        first, last = table.blocks[number]
        rows[first:last] = compute(number)
        rows.flush()
        checksums[number] = _checksum(rows[first:last])
        write_json(noted, {"checksums": checksums})
    return np.memmap(path, table.dtype, "r", shape=table.shape)


def _make(path: Path, table: Table) -> None:
    path.unlink(missing_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < table.size:
        raise UserError(
            f"{path}: {table.size / 2**30:,.1f} GiB of states are to be kept there, and the disk has "
            f"{free / 2**30:,.1f} GiB left; name a folder on another with --cache_folder"
        )
    with path.open("wb") as file:
        file.truncate(table.size)


def _noted(path: Path, count: int) -> list[int | None]:
    """The checksums of the blocks that are done; of none where the note is missing or damaged."""
    try:
        checksums = json.loads(path.read_text(encoding="utf-8"))["checksums"]
    except (OSError, ValueError, KeyError, TypeError):
        return [None] * count
    fits = isinstance(checksums, list) and len(checksums) == count
    return checksums if fits else [None] * count


def _checksum(rows: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(rows).view(np.uint8).data)
