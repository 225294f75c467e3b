"""Plots of runs: loss and validation metrics over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapter4rec.runs.ledger import validation_history
from adapter4rec.utils.files import atomic_file

_PANELS = (
    ("loss", "training loss"),
    ("HR@10", "validation HR@10 (%)"),
    ("NDCG@10", "validation NDCG@10 (%)"),
)


def draw_curves(folders: Mapping[str, Path | str], path: Path | str) -> None:
    """Plot one line per run in each panel.

    Args:
        folders: run folders, by name in the legend. A run that trains nothing is a horizontal line.
        path: the PNG file to write.

    Raises:
        OSError: a folder has no ``metrics.jsonl``.
        UserError: it is damaged.
    """
    from matplotlib.figure import Figure

    histories = {name: validation_history(Path(folder)) for name, folder in folders.items()}

    figure = Figure(figsize=(13, 4), layout="constrained")
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
        axis.xaxis.get_major_locator().set_params(integer=True)
    if len(histories) > 1:
        lines, names = figure.axes[1].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=3)
    with atomic_file(Path(path)) as aside:
        figure.savefig(aside, dpi=110, format="png")
