"""Plots of a section: validation curves, and test metrics over cost and over the varied quantity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.report.labels import Point, label_points, spread
from adapter4rec.report.plots import draw_level, draw_line, legend, name_axes, new_figure
from adapter4rec.report.results import ReportedStudy, ResultRow, Section, Statistic
from adapter4rec.report.styles import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_MOST_TICKS = 8
_MOST_MARKERS = 20
_VARIES = 1.05
"""A quantity varies within a series if the largest value is at least this multiple of the smallest."""


@dataclass(frozen=True)
class Picture:
    """A plot.

    Attributes:
        kind: one word, used in the file name.
        caption: caption of the plot.
        figure: the Matplotlib figure.
    """

    kind: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class CostPoint:
    """A cost to plot on the horizontal axis."""

    kind: str
    label: str
    of: Callable[[ResultRow], Statistic | None]


_COSTS = (
    CostPoint("parameters", "trained parameters", lambda row: row.trained_parameters),
    CostPoint("seconds", "seconds per epoch", lambda row: row.seconds_per_epoch),
    CostPoint("memory", "peak memory (MiB)", lambda row: row.peak_memory),
)


@dataclass(frozen=True)
class Drawn:
    """The data of a section's plots.

    Attributes:
        metric: the plotted test metric.
        scale_label: label of the quantity that the study varies; None if it varies none.
        rows: rows with a result.
        styles: style of each series.
    """

    metric: str
    scale_label: str | None
    rows: tuple[ResultRow, ...]
    styles: Mapping[str, Style]

    @property
    def series(self) -> list[list[ResultRow]]:
        """Rows by series, sorted by scale; rows without scale come first."""
        names = dict.fromkeys(row.planned.series for row in self.rows)
        groups = [[row for row in self.rows if row.planned.series == name] for name in names]
        return [sorted(rows, key=lambda row: row.planned.scale or -math.inf) for rows in groups]

    def reached(self, row: ResultRow) -> Statistic:
        """The test metric of a row."""
        found = row.test(self.metric)
        assert found is not None
        return found

    def style(self, row: ResultRow) -> Style:
        """The style of the row's series."""
        return self.styles[row.planned.series]


def pictures_of(study: ReportedStudy, section: Section) -> list[Picture]:
    """All plots of a section that have data. Call within :func:`styles.drawing`."""
    metric = study.headline[0]
    series = dict.fromkeys(row.planned.series for row in study.rows)
    styles = {name: Style.of(number) for number, name in enumerate(series)}
    rows = tuple(row for row in section.rows if row.test(metric) is not None)
    drawn = Drawn(metric, study.plan.scale_label, rows, styles)
    pictures = [_over_scale(drawn), *(_over_cost(drawn, cost) for cost in _COSTS), _curves(drawn)]
    return [picture for picture in pictures if picture is not None]


def _over_scale(drawn: Drawn) -> Picture | None:
    scales = sorted({row.planned.scale for row in drawn.rows if row.planned.scale is not None})
    if drawn.scale_label is None or len(scales) < 2:
        return None
    figure, (axes,) = new_figure()
    for rows in drawn.series:
        line = [(row.planned.scale, drawn.reached(row)) for row in rows if row.planned.scale is not None]
        if line:
            draw_line(axes, rows[0].planned.series, line, drawn.style(rows[0]))
        for row in rows[: len(rows) - len(line)]:
            draw_level(axes, row.planned.series, drawn.reached(row).mean, drawn.style(row))
    name_axes(axes, drawn.scale_label, f"test {drawn.metric} (%)", scales)
    if len(scales) <= _MOST_TICKS:
        axes.set_xticks(scales)
    legend(figure)
    return Picture("scale", f"Test {drawn.metric} over {drawn.scale_label}", figure)


def _curves(drawn: Drawn) -> Picture | None:
    curves = {row: curve for row in drawn.rows if (curve := _mean_curve(row, drawn.metric))}
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    panels = _panels(list(curves))
    figure, grid = new_figure(len(panels))
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        for row in rows:
            _draw_curve(axes, row.planned.series, curves[row], drawn.style(row))
        axes.set_title(title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        name_axes(axes, "epoch", f"validation {drawn.metric} (%)")
    if len(panels) > 1:
        figure.suptitle(drawn.scale_label, fontsize="medium")
    legend(figure)
    return Picture("curves", f"Validation {drawn.metric} over the epochs, mean over the seeds", figure)


def _panels(rows: Sequence[ResultRow]) -> dict[str, list[ResultRow]]:
    """Rows by panel: one panel for all rows, or one per scale if a series has several rows."""
    scales = sorted({row.planned.scale for row in rows if row.planned.scale is not None})
    if len({row.planned.series for row in rows}) == len(rows) or not scales:
        return {"": list(rows)}
    return {f"{scale:g}": [row for row in rows if row.planned.scale in (scale, None)] for scale in scales}


def _mean_curve(row: ResultRow, metric: str) -> list[tuple[int, float]]:
    values: dict[int, list[float]] = {}
    for record in row.records:
        for one in record["epochs"]:
            if one.get(metric) is not None:
                values.setdefault(one["epoch"], []).append(one[metric])
    return [(epoch, math.fsum(some) / len(some)) for epoch, some in sorted(values.items())]


def _draw_curve(axes: Axes, name: str, curve: list[tuple[int, float]], style: Style) -> None:
    if [epoch for epoch, _ in curve] == [0]:
        draw_level(axes, name, curve[0][1], style)
        return
    points = [(epoch, Statistic(value, None, 1)) for epoch, value in curve]
    draw_line(axes, name, points, style, markevery=max(1, len(curve) // _MOST_MARKERS))


def _over_cost(drawn: Drawn, cost: CostPoint) -> Picture | None:
    """Test metric over a cost: points for rows that train parameters, horizontal lines for the others."""
    at = {row: found.mean for row in drawn.rows if _trains(row) and (found := cost.of(row)) is not None}
    series = [[row for row in rows if row in at] for rows in drawn.series]
    series = [rows for rows in series if rows]
    if len(series) < 2:
        return None
    varies = any(max(map(at.get, rows)) >= _VARIES * min(map(at.get, rows)) for rows in series)
    caption = f"Test {drawn.metric} over {cost.label}"
    if not varies and any(len(rows) > 1 for rows in series):
        series = [rows[-1:] for rows in series]
        caption += f", each series at its largest scale ({drawn.scale_label})"
    figure, (axes,) = new_figure()
    for rows in series:
        line = [(at[row], drawn.reached(row)) for row in rows]
        draw_line(axes, rows[0].planned.series, line, drawn.style(rows[0]))
    levels = {row.planned.series: row for row in drawn.rows if not _trains(row)}
    for name, row in levels.items():
        draw_level(axes, name, drawn.reached(row).mean, drawn.style(row))
    shown = [row for rows in series for row in rows]
    name_axes(axes, cost.label, f"test {drawn.metric} (%)", [at[row] for row in shown])
    points = [
        Point(row.planned.series, (at[row], found.mean), found.deviation or 0)
        for row in shown
        for found in [drawn.reached(row)]
    ]
    _name_all(figure, axes, points, {name: drawn.reached(row).mean for name, row in levels.items()})
    return Picture(cost.kind, caption, figure)


def _trains(row: ResultRow) -> bool:
    found = row.trained_parameters
    return found is not None and found.mean > 0


def _name_all(figure: Figure, axes: Axes, points: list[Point], levels: dict[str, float]) -> None:
    """Label points and lines directly if names are unique and there is room; otherwise draw a legend."""
    if len({point.name for point in points}) == len(points):
        level_labels = _name_levels(axes, levels)
        figure.draw_without_rendering()
        if label_points(axes, points):
            return
        for text in level_labels:
            text.remove()
    legend(figure)


def _name_levels(axes: Axes, levels: dict[str, float]) -> list[Annotation]:
    """Label horizontal lines to the right of the axes."""
    low, high = axes.get_ylim()
    heights = spread([(value - low) / (high - low) for value in levels.values()], 0.045)
    return [
        axes.annotate(name, (1.01, height), xycoords="axes fraction", fontsize=8, va="center")
        for name, height in zip(levels, heights, strict=True)
    ]
