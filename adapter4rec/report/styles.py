"""Style of the plots: markers, and colours for colour-blind readers on light and dark backgrounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INK = "#1b1f24"
"""Colour of text and axes. In pages it is replaced by the text colour of the page."""

COLOURS = ("#0072b2", "#d55e00", "#009070", "#b8589b", "#9a7a00", "#7a6fd0", "#1f8fc4", "#808080")
"""After Okabe and Ito. Contrast of at least 3 with white and with the dark background of the page."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d")
LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Style:
    """Style of a series in all plots of a study."""

    colour: str
    marker: str
    line: str

    @classmethod
    def of(cls, number: int) -> Style:
        """Style of the n-th series. The first 104 styles differ in colour or marker."""
        line = LINES[number // len(COLOURS) % len(LINES)]
        return cls(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], line)


@contextmanager
def drawing() -> Iterator[None]:
    """Context in which plots are drawn and saved in the style of the project, reproducibly."""
    from matplotlib import rc_context

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    look = dict.fromkeys(ink, INK) | {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.18,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.markersize": 5,
        "lines.linewidth": 1.4,
        "text.parse_math": False,  # names entered by users may contain $
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
    }
    with rc_context(look):
        yield
