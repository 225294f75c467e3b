"""Axes, lines and legends shared by all plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from adapter4rec.report.results import Statistic
from adapter4rec.report.styles import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 7.4, 4.4
_PANELS_PER_ROW = 3
_LONG_NAME = 26
_WIDE = 10
"""An axis is logarithmic if its largest value exceeds the smallest by more than this factor."""


def new_figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with panels that share the vertical axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-panels // _PANELS_PER_ROW)
    figure = Figure(figsize=(_WIDTH, _HEIGHT if panels == 1 else 0.8 + 2.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, min(panels, _PANELS_PER_ROW), sharey=True, squeeze=False).ravel()
    for axes in grid[panels:]:
        axes.remove()
    return figure, list(grid[:panels])


def draw_line(
    axes: Axes,
    name: str,
    points: Sequence[tuple[float, Statistic]],
    style: Style,
    **more: Any,
) -> None:
    """Draw connected means, with error bars of one standard deviation if available."""
    deviations = [found.deviation or 0 for _, found in points]
    axes.errorbar(
        [at for at, _ in points],
        [found.mean for _, found in points],
        deviations if any(deviations) else None,
        label=name,
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        capsize=2.5,
        elinewidth=0.9,
        **more,
    )


def draw_level(axes: Axes, name: str, level: float, style: Style) -> None:
    """Draw a horizontal line."""
    axes.axhline(level, color=style.colour, linestyle=(0, (5, 3)), linewidth=1.2, label=name)


def name_axes(axes: Axes, horizontal: str, vertical: str, values: Iterable[float] = ()) -> None:
    """Label the axes. The horizontal axis is logarithmic if ``values``, its values, span a wide range."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel(horizontal)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(vertical)
    values = list(values)
    if not values:
        return
    axes.margins(x=0.08)
    if min(values) > 0 and max(values) > _WIDE * min(values):
        wide = max(values) > _WIDE**3 * min(values)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    thousands = EngFormatter(sep="")  # not for values below 1: it formats 0.1 as 100m
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}" if at < 1000 else thousands(at)))


def legend(figure: Figure) -> None:
    """Draw one legend for all axes: to the right, or below if names are long."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if max(map(len, found)) > _LONG_NAME:
        figure.legend(found.values(), found, loc="outside lower left", ncols=2)
    else:
        figure.legend(found.values(), found, loc="outside right upper")
