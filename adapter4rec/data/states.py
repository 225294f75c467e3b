"""Cached hidden states of a frozen backbone: item content, memory-mapped from disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.text import Pack, Text, TextStore

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Storage formats of hidden states."""


@dataclass(frozen=True)
class States(Content):
    """Hidden states of n items.

    Attributes:
        states: pooled ones of the last layer, float32 ``[n, attributes, h]``, or some layers for all patches
            of images, float ``[n, patches, layers, h]``.
        layers: indices of these layers; empty for the pooled states of the last layer.
    """

    states: Tensor
    layers: tuple[int, ...] = ()


class StateStore(ContentStore):
    """Hidden states of all items: pooled ones of the last layer, or some layers for all patches or tokens.

    Args:
        rows: ``[N, attributes, h]``, ``[N, patches, layers, h]`` or, concatenated over attributes,
            ``[tokens, layers, h]``; a table of :func:`adapter4rec.data.cached_table.computed_table`.
        layers: indices of the layers; empty for the pooled states of the last layer.
        dtype: number format.
        texts: the tokenised texts, for the states of tokens.
    """

    def __init__(
        self, rows: np.ndarray, layers: tuple[int, ...], dtype: torch.dtype, texts: TextStore | None = None
    ) -> None:
        self.rows, self.layers, self.dtype, self.texts = rows, layers, dtype, texts

    def fetch(self, items: np.ndarray) -> States | Text:
        """Read the states of ``items``; those of tokens in packs of texts of similar length."""
        if self.texts is None:
            return States(self._read(items - 1), self.layers)
        packs, order = self.texts.packed(items)
        states = (Pack(packing, self._read(at)) for at, packing in packs)
        return Text(tuple(states), order, len(items), self.layers)

    def costs(self, items: np.ndarray) -> np.ndarray:
        """Relative cost of encoding each of ``items``, int64 ``[n]``."""
        return super().costs(items) if self.texts is None else self.texts.costs(items)

    def _read(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rows[rows]).view(self.dtype)
