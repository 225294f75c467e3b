"""Tables independent of the output format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

NOT_THERE = "-"


class Mark(Enum):
    """Emphasis of a cell."""

    NONE = "none"
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: displayed text.
        value: sort key; cells without a value come last.
        mark: whether the value is the best or second-best of its column.
        aside: annotation after the text.
        words: whether the text is a remark instead of a value.
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
        name: header, with the unit.
        ascending: whether the column is sorted in ascending order first.
    """

    name: str
    ascending: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        name: row header.
        cells: one cell per column.
        state: reason why there are no values; empty if there are.
    """

    name: str
    cells: tuple[Cell, ...]
    state: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: title of the table.
        head: header of the first column, which contains the line names.
        columns: the other columns.
        lines: lines in order.
        notes: notes below the table.
    """

    title: str
    head: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def beside(self, other: Table) -> Table:
        """Append the columns and notes of another table with the same lines."""
        lines = tuple(
            replace(mine, cells=mine.cells + theirs.cells)
            for mine, theirs in zip(self.lines, other.lines, strict=True)
        )
        notes = tuple(dict.fromkeys(self.notes + other.notes))
        return replace(self, columns=self.columns + other.columns, lines=lines, notes=notes)
