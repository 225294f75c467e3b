"""Tables as Markdown and LaTeX, with pandas."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

from adapter4rec.report.tables import BEST, SECOND, Table

_HEAD_WIDTH = 9
_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {sign: f"${sign}$" for sign in "<>|"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$"}
)


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is also readable as plain text. All columns but the first are right-aligned.

    Args:
        head: column headers, as Markdown.
        rows: cells of each row, as Markdown.
    """
    table = pd.DataFrame([list(row) for row in rows], columns=list(head))
    alignment = ("left", *["right"] * (len(head) - 1))
    return f"{table.to_markdown(index=False, disable_numparse=True, colalign=alignment)}\n"


def markdown_text(text: str) -> str:
    """Escape plain text for Markdown, on one line."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", escape(" ".join(text.split()), quote=False))


def markdown(table: Table) -> str:
    """Render a table and its notes as Markdown."""
    texts = table.texts.map(markdown_text)
    texts = texts.mask(table.marks == BEST, "**" + texts + "**")
    texts = texts.mask(table.marks == SECOND, "<ins>" + texts + "</ins>")
    rows = [[markdown_text(name), *cells] for name, *cells in texts.itertuples(name=None)]
    parts = [aligned(["", *map(markdown_text, texts.columns)], rows), *map(markdown_text, table.notes)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def latex_text(text: str) -> str:
    """Escape plain text for LaTeX."""
    return " ".join(text.split()).translate(_LATEX)


def latex(table: Table, caption: str, label: str) -> str:
    """Render a table and its notes as a LaTeX ``table``. The document must load booktabs.

    Args:
        table: the table.
        caption: caption, as plain text.
        label: label for ``\\ref``; letters, digits, ``-`` and ``:``.
    """
    commands = {BEST: "textbf:--rwrap;", SECOND: "underline:--rwrap;"}
    texts = table.texts.map(latex_text).rename(index=latex_text, columns=_latex_head).rename_axis(index=None)
    marks = table.marks.set_axis(texts.index).set_axis(texts.columns, axis=1)
    text = texts.style.apply(lambda _: marks.map(lambda mark: commands.get(mark, "")), axis=None).to_latex(
        caption=latex_text(caption),
        label=label,
        position="htbp",
        position_float="centering",
        hrules=True,
        column_format=f"@{{}}l{'r' * len(texts.columns)}@{{}}",
    )
    small = "\\scriptsize\\setlength{\\tabcolsep}{3.5pt}\n\\begin{tabular}"
    notes = "".join(f"\\par\\smallskip\\raggedright\\scriptsize {latex_text(note)}\n" for note in table.notes)
    return text.replace(r"\begin{tabular}", small).replace(r"\end{table}", notes + r"\end{table}")


def _latex_head(name: str) -> str:
    """A column header broken into several lines, to keep the column narrow."""
    parts = textwrap.wrap(name, _HEAD_WIDTH, break_long_words=False)
    return r"\shortstack[r]{\strut " + r"\\ ".join(map(latex_text, parts)) + "}"
