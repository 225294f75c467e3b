"""Pictures of runs: loss and validation metrics over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapter4rec.utils.files import whole_file

_PANELS = (
    ("loss", "training loss"),
    ("HR@10", "validation HR@10 (%)"),
    ("NDCG@10", "validation NDCG@10 (%)"),
)


def draw_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw one line a run in each panel.

    Args:
        histories: by the name in the legend, a record for each epoch with ``epoch`` and the panels' values.
            A run with a single record, or an epoch 0 alone, is drawn as a level line.
        path: where the PNG is written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (key, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for number, (name, history) in enumerate(histories.items()):
            points = [(record["epoch"], record[key]) for record in history if record.get(key) is not None]
            colour = f"C{number}"
            if len(points) == 1 and points[0][0] == 0:
                axis.axhline(points[0][1], color=colour, linestyle="--", label=name)
            elif points:
                axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
        axis.set_xlabel("epoch")
        axis.set_title(label)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(histories) > 1:
        lines, names = figure.axes[1].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=3)
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
