"""TensorBoard logs of the metrics in ``metrics.jsonl``."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_folder


def require_tensorboard() -> None:
    """Raise a UserError if TensorBoard is not installed; called before training starts."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard true: TensorBoard is not installed; pip install tensorboard")


def write_scalars(records: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write each metric of each record as the scalar ``split/name`` at the epoch.

    The folder is rewritten each time, so that a resumed run has no duplicate epochs.

    Args:
        records: the records of ``metrics.jsonl``.
        folder: the log directory for ``tensorboard --logdir``.
    """
    from torch.utils.tensorboard import SummaryWriter

    with atomic_folder(folder.with_name(f"{folder.name}.new")) as aside:
        with SummaryWriter(str(aside)) as writer:
            for record in records:
                for name, value in record.items():
                    if name not in ("epoch", "split"):
                        writer.add_scalar(f"{record['split']}/{name}", value, record["epoch"])
        shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.new").replace(folder)
