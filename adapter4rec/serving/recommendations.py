"""Results of a ranking."""

from __future__ import annotations

from typing import NamedTuple


class RankedItem(NamedTuple):
    """A recommended item. ``title`` is empty if there is none; ``new``: not in the run's catalogue."""

    item: str
    title: str
    score: float
    new: bool


class RankedItems(list[RankedItem]):
    """Recommended items, best first. Prints one item per line; ``pandas.DataFrame(items)`` works too."""

    def __repr__(self) -> str:
        lines = []
        for rank, one in enumerate(self, 1):
            words = [one.item, one.title, "(new)" if one.new else ""]
            lines.append(f"{rank:>3}. {one.score:8.3f}  {'  '.join(word for word in words if word)}")
        return "\n".join(lines)
