"""Cached hidden states of a frozen backbone: item content, memory-mapped from disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.data.text import TextStore

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Storage formats of hidden states."""


def as_array(states: Tensor) -> np.ndarray:
    """Convert hidden states to numpy; 16-bit floats are reinterpreted as int16."""
    states = states.cpu().contiguous()
    return (states if states.dtype == torch.float32 else states.view(torch.int16)).numpy()


def array_type(form: str) -> np.dtype:
    """The numpy dtype of :func:`as_array` for a storage format."""
    return np.dtype(np.float32 if form == "fp32" else np.int16)


def _states(rows: np.ndarray, form: str) -> Tensor:
    found = torch.from_numpy(rows)
    return found if form == "fp32" else found.view(FORMATS[form])


@dataclass(frozen=True)
class States(Content):
    """[CLS] states of the last layer, float32 ``[n, attributes, h]``."""

    states: Tensor


@dataclass(frozen=True)
class StatePack(Content):
    """Hidden states of some layers for a pack of texts.

    Attributes:
        states: float ``[tokens, layers, h]``.
        packing: positions of the texts.
    """

    states: Tensor
    packing: Packing


@dataclass(frozen=True)
class TextStates(Content):
    """Hidden states of some layers for the texts of n items; see :class:`adapter4rec.data.text.Text`."""

    packs: tuple[StatePack, ...]
    layers: tuple[int, ...]
    order: Tensor
    n_items: int

    def __len__(self) -> int:
        return self.n_items


class TextStateStore:
    """Hidden states of some layers for all tokens of all item texts.

    Args:
        texts: the tokenised texts.
        rows: ``[tokens, layers, h]``, concatenated over attributes; see :func:`as_array`.
        layers: indices of the layers.
        form: storage format, a key of ``FORMATS``.
    """

    def __init__(self, texts: TextStore, rows: np.ndarray, layers: tuple[int, ...], form: str) -> None:
        self.texts, self.rows, self.layers, self.form = texts, rows, layers, form
        self.costs = texts.costs

    def fetch(self, items: np.ndarray) -> TextStates:
        """Read the states of ``items``, in packs of texts of similar length."""
        packs, order = self.texts.packed(items)
        states = (StatePack(_states(self.rows[at], self.form), packing) for at, packing in packs)
        return TextStates(tuple(states), self.layers, order, len(items))


@dataclass(frozen=True)
class PatchStates(Content):
    """Hidden states of some layers for n images, ``[n, patches, layers, h]``, and the layer indices."""

    states: Tensor
    layers: tuple[int, ...]


class StateStore:
    """Hidden states of all items: [CLS] of the last layer, or some layers for all patches of the images.

    Args:
        rows: ``[N, attributes, h]`` or ``[N, patches, layers, h]``; see :func:`as_array`.
        layers: indices of the layers; empty for [CLS] of the last layer.
        form: storage format, a key of ``FORMATS``.
    """

    def __init__(self, rows: np.ndarray, layers: tuple[int, ...], form: str) -> None:
        self.rows, self.layers, self.form = rows, layers, form

    def fetch(self, items: np.ndarray) -> States | PatchStates:
        """Read the states of ``items``."""
        states = _states(self.rows[items - 1], self.form)
        return PatchStates(states, self.layers) if self.layers else States(states)

    def costs(self) -> np.ndarray:
        """1 per item."""
        return np.ones(len(self.rows), np.int64)
