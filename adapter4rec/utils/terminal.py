"""Progress bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

if TYPE_CHECKING:
    from adapter4rec.utils.process_group import Process


def progress_bar(
    description: str, total: int, initial: int = 0, unit: str = "it", process: Process | None = None
) -> tqdm[NoReturn]:
    """A progress bar on stderr; disabled on ranks other than 0 and if stderr is not a terminal."""
    return tqdm(
        desc=description,
        total=total,
        initial=min(initial, total),
        unit=unit,
        disable=None if process is None or process.is_rank0 else True,  # None: if not a terminal
        mininterval=0.5,
        leave=False,
    )
