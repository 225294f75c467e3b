"""TensorBoard logs of the metrics in ``metrics.jsonl``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import printable


class ScalarLog:
    """The metrics of a run as scalars ``split/name`` over the epochs.

    Args:
        folder: the log directory for ``tensorboard --logdir``.

    Raises:
        UserError: TensorBoard is not installed, or cannot write into this folder.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard true: TensorBoard is not installed; pip install tensorboard")
        if printable(str(folder)) != str(folder):
            raise UserError(f"--tensorboard true: TensorBoard needs folder names in UTF-8, unlike {folder}")
        self._folder = folder
        self._writer: Any = None  # SummaryWriter, which creates the folder
        self._written = 0

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records that have been added since the last call.

        Args:
            records: all records of the run so far. The first call replaces the scalars of an earlier process
                that trained this run.
        """
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=0)
        for record in records[self._written :]:
            for name, value in record.items():
                if name not in ("epoch", "split"):
                    self._writer.add_scalar(f"{record['split']}/{name}", value, record["epoch"])
        self._written = len(records)
        self._writer.flush()
