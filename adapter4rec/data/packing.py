"""Texts laid end to end: no place holds padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content


@dataclass(frozen=True)
class Packing(Content):
    """Where texts lie that stand one behind the other, the short ones first.

    Attributes:
        spans: the number and the length of the texts of each stretch of equally long ones.
        places: int64 ``[tokens]``, the place of each token in its text, from 0.
        firsts: int64 ``[texts]``, where the first token of each text stands.
    """

    spans: tuple[tuple[int, int], ...]
    places: Tensor
    firsts: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray) -> Packing:
        """The packing of texts of these lengths, int ``[texts]``, ascending."""
        distinct, counts = np.unique(lengths, return_counts=True)
        firsts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) - np.repeat(firsts, lengths)
        spans = tuple(zip(counts.tolist(), distinct.tolist(), strict=True))
        return cls(spans, torch.from_numpy(places), torch.from_numpy(firsts))

    def __len__(self) -> int:
        return len(self.firsts)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return self.spans[-1][1]

    def real(self, width: int) -> Tensor:
        """Bool ``[texts, width]``: where tokens stand when each text has a row of its own."""
        total = self.firsts.new_tensor([len(self.places)])
        lengths = torch.cat([self.firsts, total]).diff()
        return torch.arange(width, device=lengths.device) < lengths[:, None]

    def lengthened(self, further: int) -> tuple[Packing, Tensor]:
        """The packing of the same texts with ``further`` tokens behind each first one.

        Returns:
            It, and for each of its tokens, int64, which old one it is; the further tokens of a text count on
            from the number of old ones.
        """
        spans = tuple((count, length + further) for count, length in self.spans)
        numbers = torch.arange(len(self), device=self.firsts.device)
        lengths = torch.cat([numbers.new_full((count,), length) for count, length in spans])
        texts = numbers.repeat_interleave(lengths)
        firsts = self.firsts + further * numbers
        places = torch.arange(len(texts), device=texts.device) - firsts[texts]
        own = self.firsts[texts] + (places - further).clamp(min=0)
        added = (places >= 1) & (places <= further)
        return Packing(spans, places, firsts), torch.where(added, len(self.places) + places - 1, own)
