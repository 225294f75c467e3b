"""What a frozen backbone gives for each item, computed once for the catalogue and mapped from disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.data.text import TextStore

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""The number formats that states are kept in."""


def as_array(states: Tensor) -> np.ndarray:
    """States as numpy takes them: numbers of 16 bits as plain integers."""
    states = states.cpu().contiguous()
    return (states if states.dtype == torch.float32 else states.view(torch.int16)).numpy()


def array_type(form: str) -> np.dtype:
    """numpy's type of what :func:`as_array` gives."""
    return np.dtype(np.float32 if form == "fp32" else np.int16)


def _states(rows: np.ndarray, form: str) -> Tensor:
    found = torch.from_numpy(rows)
    return found if form == "fp32" else found.view(FORMATS[form])


@dataclass(frozen=True)
class States(Content):
    """[CLS] states of the last layer: float ``[n, attributes, h]``."""

    states: Tensor

    def __len__(self) -> int:
        return len(self.states)


class StateStore:
    """[CLS] states of a catalogue, float32 ``[N, attributes, h]``."""

    def __init__(self, states: np.ndarray) -> None:
        self.states = states

    def fetch(self, items: np.ndarray) -> States:
        """Rows of the memory-mapped states."""
        return States(torch.from_numpy(self.states[items - 1]))

    def costs(self) -> np.ndarray:
        """1 an item."""
        return np.ones(len(self.states), np.int64)


@dataclass(frozen=True)
class StatePack(Content):
    """Outputs of some layers for texts that lie end to end.

    Attributes:
        states: ``[tokens, layers, h]``.
        packing: where each text lies.
    """

    states: Tensor
    packing: Packing


@dataclass(frozen=True)
class TextStates(Content):
    """Outputs of some layers for the texts of n items; see :class:`adapter4rec.data.text.Text`."""

    packs: tuple[StatePack, ...]
    layers: tuple[int, ...]
    order: Tensor
    n_items: int

    def __len__(self) -> int:
        return self.n_items


class TextStateStore(TextStore):
    """Outputs of some layers for each token of a catalogue's texts.

    Args:
        texts: the texts themselves.
        rows: ``[tokens, layers, h]``, the tokens of the first attribute's texts before those of the next.
        layers: the numbers of these layers.
        form: the format of their numbers, see ``FORMATS``.
    """

    def __init__(self, texts: TextStore, rows: np.ndarray, layers: tuple[int, ...], form: str) -> None:
        super().__init__(texts.attributes, texts.tokens_at_once)
        self.rows, self.layers, self.form = rows, layers, form
        sizes = [len(attribute.tokens) for attribute in texts.attributes]
        self._begin = np.concatenate([[0], np.cumsum(sizes)])

    def fetch(self, items: np.ndarray) -> TextStates:
        """Rows of the memory-mapped states, in packs of similar length."""
        packs, order = self.packed(items)
        states = tuple(
            StatePack(_states(self.rows[self._begin[owner] + at], self.form), packing)
            for at, owner, packing in packs
        )
        return TextStates(states, self.layers, order, len(items))


@dataclass(frozen=True)
class PatchStates(Content):
    """Outputs of some layers for n images, ``[n, patches, layers, h]``, and the numbers of these layers."""

    states: Tensor
    layers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.states)


class PatchStateStore:
    """Outputs of some layers for each patch of a catalogue's images.

    Args:
        rows: ``[N, patches, layers, h]``.
        layers: the numbers of these layers.
        form: the format of their numbers, see ``FORMATS``.
    """

    def __init__(self, rows: np.ndarray, layers: tuple[int, ...], form: str) -> None:
        self.rows, self.layers, self.form = rows, layers, form

    def fetch(self, items: np.ndarray) -> PatchStates:
        """Rows of the memory-mapped states."""
        return PatchStates(_states(self.rows[items - 1], self.form), self.layers)

    def costs(self) -> np.ndarray:
        """1 an item."""
        return np.ones(len(self.rows), np.int64)
