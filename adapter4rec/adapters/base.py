"""What all adapters share: a config, and attaching to an encoder's sites and detaching again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from adapter4rec.adapters.sites import Undo
from adapter4rec.settings import Settings, option

ENCODERS = ("item", "user")


@dataclass(frozen=True)
class AdapterConfig(Settings):
    """Base of adapter configs; each field is an option of the launchers of its family."""

    encoders: tuple[str, ...] = option(ENCODERS, "which encoders are adapted: item,user", choices=ENCODERS)


class Adapter(nn.Module):
    """The adapter of one encoder: modules of its own, and what it attached to the encoder's sites.

    A family's class is called as ``cls(config, sites)``; it builds its modules and attaches them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Undo] = []

    def attach(self, undo: Undo) -> None:
        """Remember how to take back an attachment."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Take back all attachments, the last one first: the encoder is what it was before."""
        while self._undo:
            self._undo.pop()()
