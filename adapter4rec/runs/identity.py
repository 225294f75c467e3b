"""What a run computes, compared whenever its files are read again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from adapter4rec.data.domain import Domain
from adapter4rec.models.parameters import trained_state
from adapter4rec.models.weights import load_into
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.checkpoint_file import read_checkpoint, read_description, weights_hash
from adapter4rec.utils.errors import UserError

BEST = "trained weights"
Record = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """What a run computes. Runs with equal identities give equal results on equal devices and processes.

    Attributes:
        stage: ``source`` or ``target``, and the modality.
        settings: all but the runtime options.
        data: hash of what is read of the domain.
        start: hash of the weights that the run starts from; None where there is no model.
    """

    stage: str
    settings: Record
    data: str
    start: str | None

    @classmethod
    def of(cls, settings: RunSettings, domain: Domain, model: nn.Module | None) -> Identity:
        """The identity of a run.

        Args:
            settings: of the run.
            domain: its data.
            model: as the run begins; None where there is no model.
        """
        weights = None if model is None else weights_hash(model.state_dict())
        return cls(settings.kind, settings.plain(runtime=False), domain.identity, weights)

    def short_hash(self) -> str:
        """Eight characters that differ for other identities."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    def differences(self, other: Any) -> list[str]:
        """Which parts another identity (as JSON) has otherwise."""
        if not isinstance(other, dict) or not isinstance(other.get("settings"), dict):
            return ["it does not say which"]
        mine = asdict(self)
        trouble = [
            f"{name}: {other.get(name)} there, {mine[name]} now"
            for name in ("stage", "data", "start")
            if mine[name] != other.get(name)
        ]
        there = other["settings"]
        return trouble + [
            f"--{name}: {there.get(name)} there, {self.settings.get(name)} now"
            for name in dict.fromkeys([*there, *self.settings])
            if there.get(name) != self.settings.get(name)
        ]


def checked_description(path: Path, what: str, identity: Identity) -> Record:
    """The description of a checkpoint that a run has written as ``what``.

    Raises:
        UserError: it is missing, damaged, something else, or of another run.
    """
    description = read_description(path)
    if description["what"] != what or identity.differences(description.get("identity")):
        raise UserError(
            f"{path}: holds {description['what']!r} of another run or kind, not this run's {what}"
        )
    return description


def load_best(path: Path, identity: Identity, model: nn.Module) -> Record:
    """Load the trained weights of a run's best epoch into its model.

    Returns:
        The epoch's record.

    Raises:
        UserError: they are missing, damaged, of another run, or do not fit.
    """
    description = checked_description(path, BEST, identity)
    load_into(model, read_checkpoint(path).tensors, path, trained_state(model))
    return description["record"]
