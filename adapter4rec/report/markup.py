"""HTML elements of the page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from adapter4rec.report.tables import Cell, Column, Line, Mark, Table

_LONG_HEAD = 25
_MARKED = {Mark.BEST: "b", Mark.SECOND: "u"}


def table_html(table: Table, caption: str) -> str:
    """A table in a horizontally scrollable box, with its notes.

    Args:
        table: the table.
        caption: caption of the table and accessible name of the box.
    """
    heads = "".join(map(_head, table.columns))
    lines = "\n".join(map(_line, table.lines))
    first = f'<th scope="col">{escape(table.head or "row")}</th>'
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
    return (
        f'{box}\n<table class="sortable">\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{first}{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>\n</div>\n"
        + notes_html(table.notes)
    )


def notes_html(notes: Iterable[str]) -> str:
    """Notes below a table."""
    inner = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<div class="notes">{inner}</div>\n' if inner else ""


def _head(column: Column) -> str:
    first = "ascending" if column.ascending else "descending"
    long = ' class="long"' if len(column.name) > _LONG_HEAD else ""
    return f'<th scope="col"{long} data-first="{first}">{escape(column.name)}</th>'


def _line(line: Line) -> str:
    return f'<tr><th scope="row">{escape(line.name)}</th>{"".join(map(_cell, line.cells))}</tr>'


def _cell(cell: Cell) -> str:
    text = escape(cell.text.replace(" ± ", "\u00a0±\u00a0"))  # no line break
    if cell.mark in _MARKED:
        text = f"<{_MARKED[cell.mark]}>{text}</{_MARKED[cell.mark]}>"
    if cell.aside:
        text += f" <small>{escape(cell.aside)}</small>"
    value = "" if cell.value is None else f' data-value="{cell.value:.10g}"'
    words = ' class="words"' if cell.words else ""
    return f"<td{value}{words}>{text}</td>"


def paragraphs(text: str) -> str:
    """Plain text with paragraphs separated by empty lines."""
    return "\n".join(f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def command_html(command: str) -> str:
    """A command; one click selects all of it."""
    return f"<pre><code>{escape(command)}</code></pre>" if command else ""


def pairs_html(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names with values."""
    inner = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f"<dl>{inner}</dl>\n" if inner else ""


def folded(summary: str, inside: str) -> str:
    """A collapsed section. It is expanded when the page is printed."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}</details>\n"
