"""Item content: what an item encoder reads, fetched for a set of items at a time.

A *store* holds the content of a whole catalogue and answers ``fetch(items)`` with a *content* object that
holds tensors only. The content knows how many rows of embeddings it gives (``len``) and moves to a device.
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
    """Base of content objects: tensors, or nested content, that move together."""

    def to(self: C, device: torch.device) -> C:
        """The same content on ``device`` (asynchronously where it lies in pinned memory)."""
        return replace(
            self, **{field.name: _moved(getattr(self, field.name), device) for field in fields(self)}
        )

    def pin_memory(self: C) -> C:
        """The same content in page-locked memory; called by torch's DataLoader."""
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
    """The content of all N items of a catalogue."""

    def fetch(self, items: np.ndarray) -> Content:
        """Content of ``items`` (int64 ``[n]``, numbers 1…N, distinct), in that order."""
        ...

    def costs(self) -> np.ndarray:
        """int64 ``[N]``: what encoding each item costs, in places (tokens, patches, or 1)."""
        ...


@dataclass(frozen=True)
class ItemIds(Content):
    """Content of the id tower: the item numbers themselves, int64 ``[n]``."""

    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)


class IdStore:
    """Items without content: their numbers."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def fetch(self, items: np.ndarray) -> ItemIds:
        """The numbers themselves."""
        return ItemIds(torch.from_numpy(items))

    def costs(self) -> np.ndarray:
        """1 an item."""
        return np.ones(self.n_items, np.int64)
