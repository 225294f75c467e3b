"""The identity of a run, checked whenever its files are read again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.parameters import trained_state
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into
from adapter4rec.runs.records import EpochRecord, Record, read_metrics
from adapter4rec.utils.checkpoint_file import read_checkpoint, read_description, weights_hash
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import checked_in

BEST = "trained weights"


@dataclass(frozen=True)
class Identity:
    """Everything that determines the result of a run, on the same devices and number of processes.

    Attributes:
        stage: modality and stage, as ``text source``.
        settings: all settings except runtime options.
        data: hash of the domain's data.
        start: hash of the initial weights (see :func:`initial_hash`); None without a model.
    """

    stage: str
    settings: Record
    data: str
    start: str | None

    def short_hash(self) -> str:
        """The first eight hexadecimal digits of a SHA-256 hash."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    def differences(self, other: Any) -> list[str]:
        """Differences to another identity (as JSON), one line each."""
        if not isinstance(other, dict) or not isinstance(other.get("settings"), dict):
            return ["no settings recorded"]
        was, now = (
            {name: one.get(name) for name in ("stage", "data", "start")}
            | {f"--{name}": value for name, value in one["settings"].items()}
            for one in (other, asdict(self))
        )
        return [
            f"{name}: was {was.get(name)}, now {now.get(name)}"
            for name in dict.fromkeys([*was, *now])
            if was.get(name) != now.get(name)
        ]


def initial_hash(model: TransRec) -> str:
    """Hash of a model's weights, and of what its backbone computes with them."""
    computation = ""
    if isinstance(model.item_encoder, ContentItemEncoder):
        from adapter4rec.models.backbones import computation_of

        computation = f"{computation_of(model.item_encoder.backbone.config)}, {model.item_encoder.pooling}"
    return hashlib.sha256(f"{weights_hash(model.state_dict())} {computation}".encode()).hexdigest()


def checked_description(path: Path, what: str, identity: Identity) -> Record:
    """The description of a checkpoint, after a check of its kind and of the run's identity.

    Args:
        path: the checkpoint.
        what: the expected kind of checkpoint.
        identity: of the run.

    Raises:
        UserError: the file is missing, damaged, of another kind, or of another run.
    """
    description = read_description(path)
    if description["what"] != what or identity.differences(description.get("identity")):
        raise UserError(
            f"{path}: contains {description['what']!r} of another run or kind, expected {what!r} of this run"
        )
    return description


def load_best(path: Path, identity: Identity, model: TransRec) -> EpochRecord:
    """Load the trained weights of a run's best epoch into its model.

    Returns:
        The epoch's record. That of a run without training is epoch 0, which has the initial weights.

    Raises:
        UserError: the file is missing, damaged, of another run, or does not match the model.
    """
    metrics = path.with_name("metrics.jsonl")
    if not path.exists() and metrics.is_file():
        for first in read_metrics(metrics)[:1]:
            if first["epoch"] == 0:
                return first
    description = checked_description(path, BEST, identity)
    load_into(model, read_checkpoint(path).tensors, path, trained_state(model))
    return checked_in(path, description.get("record"), EpochRecord)
