"""Pictures as SVG that stands in the middle of a page."""

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
    """A figure as an ``<svg>`` element, within :func:`styles.drawing`.

    It is as wide as the page makes it, in the page's colour of text, without a background, and names nothing
    outside of itself.

    Args:
        figure: drawn.
        name: letters, digits and ``-``; tells its ids from those of the page's other pictures.
        caption: read out in place of the picture.
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
