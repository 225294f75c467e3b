"""Item content: the inputs of an item encoder.

A *store* holds the content of all items of a catalogue; ``store.fetch(items)`` returns a *content* object, a
dataclass of tensors. ``len(content)`` is the number of items; ``content.to(device)`` moves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

C = TypeVar("C", bound="Content")


@dataclass(frozen=True)
class Content:
    """Base of content dataclasses; fields are tensors, nested content or plain values."""

    def __len__(self) -> int:
        """Number of items: the length of the first field."""
        return len(getattr(self, fields(self)[0].name))

    def to(self: C, device: torch.device) -> C:
        """Copy to ``device`` (asynchronously from pinned memory)."""
        return self.changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: C) -> C:
        """Copy to pinned memory; called by torch's DataLoader."""
        return self.changed(Tensor.pin_memory)

    def changed(self: C, change: Callable[[Tensor], Any]) -> C:
        """A copy with all tensors changed, in nested content, too."""
        return replace(self, **{one.name: _changed(getattr(self, one.name), change) for one in fields(self)})


def _changed(value: object, change: Callable[[Tensor], Any]) -> object:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Content):
        return value.changed(change)
    return tuple(_changed(part, change) for part in value) if isinstance(value, tuple) else value


class ContentStore(Protocol):
    """Content of the N items of a catalogue."""

    def fetch(self, items: np.ndarray) -> Content:
        """Content of ``items`` (int64 ``[n]``, distinct ids 1…N), in that order."""
        ...

    def costs(self, items: np.ndarray) -> np.ndarray:
        """Relative cost of encoding each of ``items``, int64 ``[n]``: its number of tokens; here 1."""
        return np.ones_like(items)


@dataclass(frozen=True)
class ItemIds(Content):
    """Content of the id tower: item ids, int64 ``[n]``."""

    ids: Tensor


class IdStore(ContentStore):
    """Store of the id tower: items are their ids."""

    def fetch(self, items: np.ndarray) -> ItemIds:
        """The ids ``items`` as content."""
        return ItemIds(torch.from_numpy(items))
