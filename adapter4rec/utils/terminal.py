"""Progress bars."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from adapter4rec.utils.process_group import Process


def progress_bar(
    description: str, total: int, initial: int = 0, unit: str = "it", process: Process | None = None
) -> tqdm:
    """A progress bar on stderr; disabled on ranks other than 0 and if stderr is not a terminal."""
    shown = sys.stderr.isatty() and (process is None or process.is_rank0)
    return tqdm(
        desc=description,
        total=total,
        initial=min(initial, total),
        unit=unit,
        disable=not shown,
        mininterval=0.5,
        leave=False,
    )
