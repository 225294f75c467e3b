"""Progress bars, on a terminal only: redirected output holds lines alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from adapter4rec.utils.process_group import Process


def progress_bar(
    description: str, total: int, initial: int = 0, unit: str = "it", process: Process | None = None
) -> tqdm:
    """A progress bar on stderr, where that is a terminal and this is the first process."""
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
