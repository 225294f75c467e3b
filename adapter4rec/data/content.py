"""Item content: the inputs of an item encoder.

A *store* holds the content of all items of a catalogue; ``store.fetch(items)`` returns a *content* object, a
dataclass of tensors. ``len(content)`` is the number of items; ``content.to(device)`` moves it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

C = TypeVar("C", bound="Content")


@dataclass(frozen=True)
class Content:
    """Base of content dataclasses; fields are tensors, nested content or plain values."""

    def to(self: C, device: torch.device) -> C:
        """Copy to ``device`` (asynchronously from pinned memory)."""
        return replace(
            self, **{field.name: _moved(getattr(self, field.name), device) for field in fields(self)}
        )

    def pin_memory(self: C) -> C:
        """Copy to pinned memory; called by torch's DataLoader."""
        return replace(self, **{field.name: _pinned(getattr(self, field.name)) for field in fields(self)})


def _moved(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Content):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value


def _pinned(value: object) -> object:
    if isinstance(value, Tensor | Content):
        return value.pin_memory()
    if isinstance(value, tuple):
        return tuple(_pinned(part) for part in value)
    return value


class ContentStore(Protocol):
    """Content of the N items of a catalogue."""

    def fetch(self, items: np.ndarray) -> Content:
        """Content of ``items`` (int64 ``[n]``, distinct ids 1…N), in that order."""
        ...

    def costs(self) -> np.ndarray:
        """Relative cost of encoding each item, int64 ``[N]``: its number of tokens, or 1."""
        ...


@dataclass(frozen=True)
class ItemIds(Content):
    """Content of the id tower: item ids, int64 ``[n]``."""

    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)


class IdStore:
    """Store of the id tower: items are their ids."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def fetch(self, items: np.ndarray) -> ItemIds:
        """The ids ``items`` as content."""
        return ItemIds(torch.from_numpy(items))

    def costs(self) -> np.ndarray:
        """1 per item."""
        return np.ones(self.n_items, np.int64)
