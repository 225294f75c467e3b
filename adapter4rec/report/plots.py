"""Plots of a section: test metrics over the varied quantity and over cost, and validation curves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from adapter4rec.report.results import MEMORY, SECONDS, TRAINED, Section, StudyResults
from adapter4rec.utils.plain_text import printable

COLOURS = ("#0072b2", "#d55e00", "#009070", "#b8589b", "#9a7a00", "#7a6fd0", "#1f8fc4", "#808080")
"""After Okabe and Ito, for colour-blind readers; contrast of at least 3 with white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d")
_FEW = 4
"""A plot with at most this many points is small."""
_WIDE = 10
"""An axis is logarithmic if its largest value exceeds the smallest by more than this factor."""
_PANELS_PER_ROW = 3
_LINE = 95
"""Characters in a line of the legend."""
_LONGEST_NAME = 150
"""Characters of a name in a plot. The time to draw a text grows with the square of its length."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "text.parse_math": False,  # names entered by users may contain $
    "svg.hashsalt": "report",  # the same plot gives the same file
}
"""Matplotlib's settings for drawing and saving."""

Styles = Mapping[str, tuple[str, str]]
"""Colour and marker of each series, the same in all plots of a study."""


def plots_of(study: StudyResults, section: Section) -> dict[str, Figure]:
    """All plots of a section that have data, by kind. Call it with :data:`STYLE`."""
    metric = study.headline[0]
    names = study.runs["name"].drop_duplicates()
    styles = dict(zip(names, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))
    rows = section.rows.join(section.over_seeds(f"test.{metric}")).dropna(subset="mean")
    trains = section.over_seeds(TRAINED)["mean"] > 0
    costs = {name: section.over_seeds(name)["mean"].where(trains) for name in (TRAINED, SECONDS, MEMORY)}
    places = {
        "scale": (study.scale_label or "", rows["scale"]),
        "parameters": ("trained parameters", costs[TRAINED]),
        "seconds": ("seconds per epoch", costs[SECONDS]),
        "memory": ("peak memory (MiB)", costs[MEMORY] / 2**20),
    }
    plots = {}
    for kind, (label, at) in places.items():
        if label and at.nunique() > 1:
            title, points = f"Test {metric} over {label}", {"": rows.assign(at=at)}
            plots[kind] = _plot(title, label, f"test {metric} (%)", points, styles)
    curves = _curves(section, metric)
    if curves["at"].nunique() > 1:
        scales = sorted(curves["scale"].dropna().unique()) if rows["name"].duplicated().any() else []
        panels = {f"{scale:g}": curves[curves["scale"].fillna(scale) == scale] for scale in scales}
        title = f"Validation {metric} over the epochs" + (f", by {study.scale_label}" if panels else "")
        plots["curves"] = _plot(title, "epoch", f"validation {metric} (%)", panels or {"": curves}, styles)
    return plots


def _curves(section: Section, metric: str) -> pd.DataFrame:
    """Means over the seeds: ``name``, ``scale``, epoch ``at`` (NaN if nothing is trained), and ``mean``."""
    place: list[Any] = ["row", "name", "scale"]
    runs = section.finished[place].assign(epochs=[record["epochs"] for record in section.finished["record"]])
    epochs = pd.json_normalize(runs.to_dict("records"), "epochs", place)  # type: ignore[arg-type]
    epochs = epochs.reindex(columns=[*place, "epoch", metric]).dropna(subset=metric)
    curves = (
        epochs.groupby([*place, "epoch"], dropna=False, sort=False)[metric].mean().reset_index(name="mean")
    )
    trained = curves.groupby("row")["epoch"].transform("max") > 0
    return curves.assign(at=curves["epoch"].where(trained), deviation=float("nan"))


def _plot(
    title: str, horizontal: str, vertical: str, panels: Mapping[str, pd.DataFrame], styles: Styles
) -> Figure:
    """Draw connected means with error bars of one deviation. Points without a place are horizontal lines.

    Args:
        title: title of the plot.
        horizontal: label of the horizontal axis.
        vertical: label of the vertical axis.
        panels: points by title of the panel: ``name``, place ``at``, ``mean`` and ``deviation``.
        styles: styles of the series.
    """
    rows = -(-len(panels) // _PANELS_PER_ROW)
    figure = Figure(layout="constrained")
    grid = figure.subplots(rows, min(len(panels), _PANELS_PER_ROW), sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    legend: dict[str, Any] = {}
    for axes, (name, points) in zip(grid, panels.items(), strict=False):
        for series, line in points.groupby("name", sort=False):
            colour, marker = styles[str(series)]
            placed = line.dropna(subset="at").sort_values("at")
            if placed.empty:
                legend[str(series)] = axes.axhline(line["mean"].iloc[0], color=colour, linestyle="--")
            else:
                bars = None if placed["deviation"].isna().all() else placed["deviation"]
                legend[str(series)] = axes.errorbar(
                    placed["at"], placed["mean"], bars, color=colour, marker=marker, capsize=2.5
                )
        if points["at"].min() > 0 and points["at"].max() > _WIDE * points["at"].min():
            axes.set_xscale("log", subs=[])
            axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
        elif (points["at"].dropna() % 1 == 0).all():
            axes.locator_params("x", integer=True)
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value:g}" if value < 1000 else EngFormatter(sep="")(value)
        )
        axes.set(title=name, xlabel=_shown(horizontal))
    figure.supylabel(vertical, fontsize="medium")
    figure.suptitle(_shown(title))
    names = [*map(_shown, legend)]
    columns = max(1, _LINE // (6 + max(map(len, names))))
    width, height = (5.4, 3.2) if max(map(len, panels.values())) <= _FEW else (7.4, 1.8 + 2.2 * rows)
    figure.set_size_inches(width, height + 0.2 * -(-len(legend) // columns))
    figure.legend(legend.values(), names, loc="outside lower left", ncols=columns)
    return figure


def _shown(name: str) -> str:
    """A name that matplotlib can draw: the middle of a long one is left out."""
    name, half = printable(name), _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]} … {name[-half:]}"
