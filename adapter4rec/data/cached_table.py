"""A table on disk that is computed block by block: what an interrupted computation has done is kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.utils.files import locked_file, reserve, whole_file, write_json

_ROWS, _CHECKSUMS, _LOCK = "rows.bin", "blocks.json", "lock"


@dataclass(frozen=True)
class TableLayout:
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
    place: Path, table: TableLayout, compute: Callable[[int], np.ndarray], say: Callable[[str], None] = print
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
    with _alone(place, say):
        path, noted = place / _ROWS, place / _CHECKSUMS
        if not path.exists() or path.stat().st_size != table.size:
            with whole_file(path) as aside, aside.open("wb") as file:
                reserve(file, table.size, str(path))
        checksums = _noted(noted, len(table.blocks))
        rows = np.memmap(path, table.dtype, "r", shape=table.shape)
        missing = [
            number
            for number, (first, last) in enumerate(table.blocks)
            if checksums[number] is None or checksums[number] != _checksum(rows[first:last])
        ]
        if missing:
            _fill(path, table, missing, checksums, compute, say)
        return rows


def _fill(
    path: Path,
    table: TableLayout,
    missing: list[int],
    checksums: list[str | None],
    compute: Callable[[int], np.ndarray],
    say: Callable[[str], None],
) -> None:
    """Compute the missing blocks, and note the checksum of each when it is there."""
    done = len(table.blocks) - len(missing)
    going_on = f", {100 * done // len(table.blocks)} % is there" if done else ""
    say(f"computing {table.size / 2**20:,.1f} MiB of states in {path.parent}{going_on}")
    rows = np.memmap(path, table.dtype, "r+", shape=table.shape)
    for number in missing:
        first, last = table.blocks[number]
        rows[first:last] = compute(number)
        rows.flush()
        checksums[number] = _checksum(rows[first:last])
        write_json(path.parent / _CHECKSUMS, {"checksums": checksums})


@contextmanager
def _alone(place: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other runs from the same table meanwhile, where the system knows such locks."""
    if not os.access(place, os.W_OK):  # one that may only be read is whole, or refused
        yield
        return
    with locked_file(place / _LOCK, lambda: say(f"waiting for another run that is at {place}")):
        yield


def _noted(path: Path, count: int) -> list[str | None]:
    """The checksums of the blocks that are done; of none where the note is missing or damaged."""
    try:
        checksums = json.loads(path.read_text(encoding="utf-8"))["checksums"]
    except (OSError, ValueError, KeyError, TypeError):
        return [None] * count
    fits = isinstance(checksums, list) and len(checksums) == count
    return checksums if fits else [None] * count


def _checksum(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).view(np.uint8).data).hexdigest()
