"""Tables apart from the form that they are written in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

NOT_THERE = "-"


class Mark(Enum):
    """How a cell stands out."""

    NONE = "none"
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: as it is read.
        value: what it is sorted by; None puts it last.
        mark: whether it is the best or the second of its column.
        aside: what follows the text and is no part of the figure.
        words: whether it says something in place of a figure.
    """

    text: str
    value: float | None = None
    mark: Mark = Mark.NONE
    aside: str = ""
    words: bool = False


NOTHING = Cell(NOT_THERE, words=True)


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its head, with the unit.
        ascending: whether less is better, or comes first where it is sorted.
    """

    name: str
    ascending: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        name: its head.
        cells: one a column.
        state: where nothing was measured, why; no cell but those that differ says more.
    """

    name: str
    cells: tuple[Cell, ...]
    state: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it shows.
        head: of the first column, which names the lines.
        columns: the others.
        lines: in order.
        notes: sentences that stand below it.
    """

    title: str
    head: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def beside(self, other: Table) -> Table:
        """One table from two with the same lines."""
        lines = tuple(
            replace(mine, cells=mine.cells + theirs.cells)
            for mine, theirs in zip(self.lines, other.lines, strict=True)
        )
        notes = tuple(dict.fromkeys(self.notes + other.notes))
        return replace(self, columns=self.columns + other.columns, lines=lines, notes=notes)
