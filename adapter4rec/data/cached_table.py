"""On-disk cache of a large table, computed in blocks; an interrupted computation can be resumed."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adapter4rec.utils.files import is_intact, locked_file, write_hash

_ROWS, _PARTIAL, _LOCK = "rows.bin", "rows.part", "lock"


def computed_table(
    place: Path,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    ends: list[int],
    compute: Callable[[int], Tensor],
    log: Callable[[str], None] = print,
) -> np.memmap:
    """Load a table from the cache, or compute it. A table that does not match its SHA-256 is computed again.

    Args:
        place: folder of the table, created if missing; its name is the hash of the inputs.
        shape: shape; the first dimension is rows.
        dtype: number format.
        ends: for each block of rows that are computed together, the row after its last one.
        compute: computes the rows of a block, by its index.
        log: prints messages.

    Returns:
        The memory-mapped table, as signed integers with the bits of the numbers.

    Raises:
        OSError: not enough disk space.
    """
    path = place / _ROWS
    if not is_intact(path):
        place.mkdir(parents=True, exist_ok=True)
        busy = f"waiting for another run that is computing {place}"
        with locked_file(place / _LOCK, lambda: log(busy)):
            if not is_intact(path):
                if path.exists():
                    log(f"{path} is damaged and computed again")
                    path.unlink()
                row_bytes = dtype.itemsize * math.prod(shape[1:])
                _write_blocks(place / _PARTIAL, [end * row_bytes for end in ends], compute, log)
                write_hash(path, place / _PARTIAL)
                (place / _PARTIAL).replace(path)
    return np.memmap(path, f"i{dtype.itemsize}", "r", shape=shape)


def _write_blocks(
    path: Path, ends: list[int], compute: Callable[[int], Tensor], log: Callable[[str], None]
) -> None:
    """Append the missing blocks to a file; a block that was not written completely is computed again."""
    with path.open("ab") as file:
        done = bisect_right(ends, path.stat().st_size)
        file.truncate(ends[done - 1] if done else 0)
        resuming = f", resuming at {100 * done // len(ends)} %" if done else ""
        log(f"computing {ends[-1] / 2**20:,.1f} MiB of hidden states in {path.parent}{resuming}")
        for number in range(done, len(ends)):
            file.write(compute(number).cpu().contiguous().view(torch.uint8).numpy().data)
            file.flush()
        os.fsync(file.fileno())
