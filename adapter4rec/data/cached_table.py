"""On-disk cache of a large table, computed in blocks; an interrupted computation can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.utils.files import atomic_file, locked_file, reserve, write_json

_ROWS, _CHECKSUMS, _LOCK = "rows.bin", "blocks.json", "lock"


@dataclass(frozen=True)
class TableLayout:
    """Shape, dtype and blocks of a table.

    Attributes:
        shape: shape; the first dimension is rows.
        dtype: data type.
        blocks: half-open row ranges ``(first, last)`` that are computed together, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Size on disk in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def computed_table(
    place: Path, table: TableLayout, compute: Callable[[int], np.ndarray], log: Callable[[str], None] = print
) -> np.memmap:
    """Load a table from the cache; missing or damaged blocks are computed.

    Args:
        place: folder of the table, created if missing; its name is the hash of the inputs.
        table: layout of the table.
        compute: computes the rows of a block, by its index.
        log: prints messages.

    Returns:
        The memory-mapped table.

    Raises:
        UserError: not enough disk space.
    """
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place, log):
        path = place / _ROWS
        if not path.exists() or path.stat().st_size != table.size:
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                reserve(file, table.size, str(path))
        checksums = _read_checksums(place / _CHECKSUMS, len(table.blocks))
        rows = np.memmap(path, table.dtype, "r", shape=table.shape)
        missing = [
            number
            for number, (first, last) in enumerate(table.blocks)
            if checksums[number] is None or checksums[number] != _checksum(rows[first:last])
        ]
        if missing:
            _fill(path, table, missing, checksums, compute, log)
        return rows


def _fill(
    path: Path,
    table: TableLayout,
    missing: list[int],
    checksums: list[str | None],
    compute: Callable[[int], np.ndarray],
    log: Callable[[str], None],
) -> None:
    """Compute the missing blocks; the checksum of a block is written once the block is on disk."""
    done = len(table.blocks) - len(missing)
    resuming = f", resuming at {100 * done // len(table.blocks)} %" if done else ""
    log(f"computing {table.size / 2**20:,.1f} MiB of hidden states in {path.parent}{resuming}")
    rows = np.memmap(path, table.dtype, "r+", shape=table.shape)
    for number in missing:
        first, last = table.blocks[number]
        rows[first:last] = compute(number)
        rows.flush()
        checksums[number] = _checksum(rows[first:last])
        write_json(path.parent / _CHECKSUMS, {"checksums": checksums})


@contextmanager
def _locked(place: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Lock the table against other runs."""
    if not os.access(place, os.W_OK):  # a read-only table needs no lock: nothing is computed
        yield
        return
    with locked_file(place / _LOCK, lambda: log(f"waiting for another run that is computing {place}")):
        yield


def _read_checksums(path: Path, count: int) -> list[str | None]:
    """Checksums of the finished blocks, None for the others (for all, if the file is missing or damaged)."""
    try:
        checksums = json.loads(path.read_text(encoding="utf-8"))["checksums"]
    except (OSError, ValueError, KeyError, TypeError):
        return [None] * count
    fits = isinstance(checksums, list) and len(checksums) == count
    return checksums if fits else [None] * count


def _checksum(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).view(np.uint8).data).hexdigest()
