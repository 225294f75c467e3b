"""Tables as Markdown and as LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from adapter4rec.report.tables import Cell, Line, Mark, Table

_MARKDOWN = {
    "\\": "\\\\",
    "|": "\\|",
    "*": "\\*",
    "_": "\\_",
    "`": "\\`",
    "[": "\\[",
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
}
_HEAD_WIDTH = 9
_MANY_COLUMNS = 5
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "\n": " ",
    "\u00a0": "~",
}


def markdown_text(text: str) -> str:
    """Escape plain text for Markdown, on one line."""
    return " ".join("".join(_MARKDOWN.get(sign, sign) for sign in text).split())


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is also readable as plain text. All columns but the first are right-aligned.

    Args:
        head: column headers, as Markdown.
        rows: cells of each row, as Markdown.
    """
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def markdown(table: Table) -> str:
    """Render a table and its notes as Markdown."""
    head = (table.head, *(markdown_text(column.name) for column in table.columns))
    rows = [(markdown_text(line.name), *map(_markdown_cell, line.cells)) for line in table.lines]
    text = aligned(head, rows)
    notes = "".join(f"{markdown_text(note)}\n\n" for note in table.notes)
    return f"{text}\n{notes}".rstrip("\n") + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    marked = {Mark.BEST: f"**{text}**", Mark.SECOND: f"<ins>{text}</ins>"}.get(cell.mark, text)
    return f"{marked} {markdown_text(cell.aside)}" if cell.aside else marked


def latex_text(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(table: Table, caption: str, label: str) -> str:
    """Render a table and its notes as a LaTeX ``table``. The document must load booktabs.

    Args:
        table: the table.
        caption: caption, as plain text.
        label: label for ``\\ref``; letters, digits, ``-`` and ``:``.
    """
    width = len(table.columns)
    heads = " & ".join([latex_text(table.head), *(_head(column.name) for column in table.columns)])
    lines = [
        r"\begin{table}[htbp]",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \{'scriptsize' if width > _MANY_COLUMNS else 'footnotesize'}",
        r"  \setlength{\tabcolsep}{3.5pt}",
        r"  \par\smallskip",
        rf"  \begin{{tabular}}{{@{{}}l{'r' * width}@{{}}}}",
        r"    \toprule",
        rf"    {heads} \\",
        r"    \midrule",
        *(f"    {_latex_line(line)} \\\\" for line in table.lines),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\smallskip\raggedright\scriptsize {latex_text(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(name: str) -> str:
    """A column header broken into several lines, to keep the column narrow."""
    together = re.sub(r"\([^)]*\)", lambda found: found[0].replace(" ", "\u00a0"), name)
    parts = [latex_text(part) for part in textwrap.wrap(together, _HEAD_WIDTH, break_long_words=False)]
    if len(parts) < 2:
        return latex_text(name)
    return r"\shortstack[r]{\strut " + r"\\ ".join(parts) + "}"


def _latex_line(line: Line) -> str:
    cells = [latex_text(line.name), *map(_latex_cell, line.cells)]
    words = [place for place, cell in enumerate(line.cells, 1) if cell.words]
    if line.state and words and words == list(range(words[0], words[-1] + 1)):
        state = rf"\multicolumn{{{len(words)}}}{{l}}{{\emph{{{latex_text(line.state)}}}}}"
        cells[words[0] : words[-1] + 1] = [state]
    return " & ".join(cells)


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    command = {Mark.BEST: "textbf", Mark.SECOND: "underline"}.get(cell.mark)
    marked = rf"\{command}{{{text}}}" if command else text
    return f"{marked} {latex_text(cell.aside)}" if cell.aside else marked
