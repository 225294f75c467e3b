"""On-disk cache of a large table, computed in blocks; an interrupted computation can be resumed."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.utils.files import locked_file

_ROWS, _PARTIAL, _LOCK = "rows.bin", "rows.part", "lock"


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

    def offset(self, row: int) -> int:
        """Position of a row in the file, in bytes."""
        return row * int(np.prod(self.shape[1:])) * self.dtype.itemsize


def computed_table(
    place: Path, table: TableLayout, compute: Callable[[int], np.ndarray], log: Callable[[str], None] = print
) -> np.memmap:
    """Load a table from the cache, or compute it.

    Args:
        place: folder of the table, created if missing; its name is the hash of the inputs.
        table: layout of the table.
        compute: computes the rows of a block, by its index.
        log: prints messages.

    Returns:
        The memory-mapped table.

    Raises:
        OSError: not enough disk space.
    """
    path = place / _ROWS
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        busy = f"waiting for another run that is computing {place}"
        with locked_file(place / _LOCK, lambda: log(busy)):
            if not path.exists():
                _write_blocks(place / _PARTIAL, table, compute, log)
                (place / _PARTIAL).replace(path)
    return np.memmap(path, table.dtype, "r", shape=table.shape)


def _write_blocks(
    path: Path, table: TableLayout, compute: Callable[[int], np.ndarray], log: Callable[[str], None]
) -> None:
    """Append the missing blocks to a file; a block that was not written completely is computed again."""
    ends = [table.offset(last) for _, last in table.blocks]
    with path.open("ab") as file:
        done = bisect_right(ends, path.stat().st_size)
        file.truncate(ends[done - 1] if done else 0)
        resuming = f", resuming at {100 * done // len(ends)} %" if done else ""
        log(f"computing {ends[-1] / 2**20:,.1f} MiB of hidden states in {path.parent}{resuming}")
        for number in range(done, len(ends)):
            file.write(np.ascontiguousarray(compute(number)).data)
            file.flush()
        os.fsync(file.fileno())
