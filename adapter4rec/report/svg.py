"""Plots as inline SVG."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from adapter4rec.report.styles import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="|url\()#')


def inline_svg(figure: Figure, name: str, caption: str) -> str:
    """Render a figure as an ``<svg>`` element. Call within :func:`styles.drawing`.

    The element scales with the page, uses its text colour, is transparent and has no external references.

    Args:
        figure: the figure.
        name: prefix that makes ids unique within the page; letters, digits and ``-``.
        caption: accessible name.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', text)[0]
    label = html.escape(caption)
    text = re.sub(r"^<svg[^>]*>", f'<svg {box} role="img" aria-label="{label}">', text)
    text = _ID.sub(lambda found: f'id="{name}-{found[1]}"', text)
    text = _REFERENCE.sub(lambda found: f"{found[1]}#{name}-", text).replace("xlink:href", "href")
    return text.replace(INK, "currentColor").strip()
