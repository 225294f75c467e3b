"""The scalars of ``metrics.jsonl`` for TensorBoard."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import whole_folder


def require_tensorboard() -> None:
    """Raise a UserError where the package is missing: before a training, not after its first epoch."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard true: the package is not there; pip install tensorboard")


def write_scalars(records: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write each number of each record as ``split/name`` over the epoch.

    The folder is written anew each time, so that a run which goes on shows no epoch twice.

    Args:
        records: those of ``metrics.jsonl``.
        folder: for ``tensorboard --logdir``.
    """
    from torch.utils.tensorboard import SummaryWriter

    with whole_folder(folder.with_name(f"{folder.name}.new")) as aside:
        with SummaryWriter(str(aside)) as writer:
            for record in records:
                for name, value in record.items():
                    if name not in ("epoch", "split"):
                        writer.add_scalar(f"{record['split']}/{name}", value, record["epoch"])
        shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.new").replace(folder)
