"""Packed sequences: texts concatenated without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content


@dataclass(frozen=True)
class Packing(Content):
    """Positions of texts that are concatenated in order of ascending length.

    Attributes:
        firsts: int64 ``[texts]``, index of the first token of each text.
        places: int64 ``[tokens]``, position of each token in its text, from 0.
        spans: ``(number of texts, length)`` for each group of texts of equal length.
    """

    firsts: Tensor
    places: Tensor
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: np.ndarray) -> Packing:
        """Create a packing from text lengths, int ``[texts]``, ascending."""
        distinct, counts = np.unique(lengths, return_counts=True)
        firsts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) - np.repeat(firsts, lengths)
        spans = tuple(zip(counts.tolist(), distinct.tolist(), strict=True))
        return cls(torch.from_numpy(firsts), torch.from_numpy(places), spans)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest text."""
        return self.spans[-1][1]

    @property
    def texts(self) -> Tensor:
        """Number of the text of each token, int64 ``[tokens]``."""
        numbers = torch.arange(len(self), device=self.firsts.device)
        return numbers.repeat_interleave(self._lengths(), output_size=len(self.places))

    def real(self, width: int) -> Tensor:
        """Mask of the padded form, bool ``[texts, width]``: true at tokens, false at padding on the right."""
        return torch.arange(width, device=self.firsts.device) < self._lengths()[:, None]

    def _lengths(self) -> Tensor:
        return torch.cat([self.firsts, self.firsts.new_full((1,), len(self.places))]).diff()

    def lengthened(self, further: int) -> tuple[Packing, Tensor]:
        """Insert ``further`` tokens after the first token of each text (prefix or prompt tokens).

        Returns:
            The new packing, and for each of its tokens the index of the source token, int64 ``[new tokens]``:
            old tokens are 0 … T - 1, the inserted tokens of each text T … T + further - 1.
        """
        spans = tuple((count, length + further) for count, length in self.spans)
        numbers = torch.arange(len(self), device=self.firsts.device)
        total = len(self.places) + further * len(self)  # known here: counting would wait for a GPU
        texts = numbers.repeat_interleave(self._lengths() + further, output_size=total)
        firsts = self.firsts + further * numbers
        places = torch.arange(len(texts), device=texts.device) - firsts[texts]
        own = self.firsts[texts] + (places - further).clamp(min=0)
        added = (places >= 1) & (places <= further)
        return Packing(firsts, places, spans), torch.where(added, len(self.places) + places - 1, own)
