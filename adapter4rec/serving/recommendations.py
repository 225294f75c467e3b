"""Results of a ranking, by item number and by item name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Recommendation:
    """The top-ranked items for a user.

    Attributes:
        user: user name, or a description of the history.
        history: item numbers, oldest first, int ``[clicks]``.
        items: item numbers, best first, int ``[k]``.
        scores: scores of ``items``, float ``[k]``.
    """

    user: str
    history: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class RankedItem(NamedTuple):
    """A recommended item. ``title`` is empty if there is none; ``new``: not in the run's catalogue."""

    item: str
    title: str
    score: float
    new: bool


class RankedItems(list[RankedItem]):
    """Recommended items, best first. Prints one item per line; ``pandas.DataFrame(items)`` works too."""

    def __repr__(self) -> str:
        return "\n".join(
            f"{rank:>3}. {one.score:8.3f}  {one.item}  {one.title}{'  (new)' * one.new}".rstrip()
            for rank, one in enumerate(self, 1)
        )
