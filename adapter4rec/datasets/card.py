"""The data card: what a prepared domain contains, in figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from adapter4rec.datasets.clicks import Step
from adapter4rec.datasets.times import unit_of
from adapter4rec.utils.files import file_hash

CARD_JSON, CARD_MD = "card.json", "card.md"
_QUANTILES = {"minimum": 0, "5 %": 5, "25 %": 25, "median": 50, "75 %": 75, "95 %": 95, "maximum": 100}


@dataclass
class Card:
    """What a prepared domain contains and how it was made.

    Attributes:
        name: name of the data set; ``table`` for a table.
        data: figures, see :func:`figures`.
        steps: what each step dropped.
        notes: what was met and done.
        inputs: files that were read, with size and SHA-256.
        command: the command, without the output folder.
    """

    name: str
    data: dict[str, Any]
    steps: Sequence[Step] = ()
    notes: Sequence[str] = ()
    inputs: Sequence[Mapping[str, Any]] = ()
    command: str = ""
    files: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The card as JSON-serialisable values."""
        steps = [asdict(step) for step in self.steps]
        parts = {"name": self.name, "data": self.data, "dropped": steps, "notes": list(self.notes)}
        return parts | {"inputs": list(self.inputs), "files": list(self.files), "command": self.command}

    def markdown(self) -> str:
        """The card as a page."""
        lines = [f"# Data card: {self.name}", "", *_table(("", ""), _overview(self.data)), ""]
        spread = [
            (what, *(_number(self.data[what][name]) for name in (*_QUANTILES, "mean")))
            for what in ("clicks per user", "clicks per item")
        ]
        lines += [*_table(("", *_QUANTILES, "mean"), spread), ""]
        if self.steps:
            rows = [(step.what, *map(_number, (step.clicks, step.users, step.items))) for step in self.steps]
            lines += ["## Dropped", "", *_table(("step", "clicks", "users", "items"), rows), ""]
        if self.notes:
            lines += ["## Notes", "", *(f"- {note}" for note in self.notes), ""]
        for title, files in (("Inputs", self.inputs), ("Files", self.files)):
            if files:
                rows = [(one["name"], _number(one["bytes"]), one["sha256"]) for one in files]
                lines += [f"## {title}", "", *_table(("file", "bytes", "SHA-256"), rows), ""]
        if self.command:
            lines += ["## Command", "", f"    {self.command}", ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write ``card.json`` and ``card.md``."""
        text = json.dumps(self.plain(), indent=2, ensure_ascii=False) + "\n"
        (folder / CARD_JSON).write_text(text, encoding="utf-8")
        (folder / CARD_MD).write_text(self.markdown(), encoding="utf-8")


def described(path: Path, name: str | None = None) -> dict[str, Any]:
    """Name, size and SHA-256 of a file."""
    return {"name": name or path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)}


def figures(
    user: np.ndarray, item: np.ndarray, listed: int, time: np.ndarray | None, content: Mapping[str, int]
) -> dict[str, Any]:
    """The figures of a card.

    Args:
        user: user of each click, in blocks, ``[clicks]``.
        item: item of each click, from 0, ``[clicks]``.
        listed: number of items in ``items.tsv``.
        time: time of each click, or None.
        content: number of listed items with a title, an image, and so on.
    """
    per_user = np.bincount(user)
    per_item = np.bincount(item)
    per_user, per_item = per_user[per_user > 0], per_item[per_item > 0]
    clicks, users, items = len(user), len(per_user), len(per_item)
    repeated, repeating = _repeats(user, item)
    top = np.sort(per_item)[::-1][: max(1, items // 100)].sum()
    data: dict[str, Any] = {
        "users": users,
        "items": items,
        "items in items.tsv": listed,
        "clicks": clicks,
        "density": _rounded(clicks / (users * items)) if clicks else 0.0,
        "clicks per user": _quantiles(per_user),
        "clicks per item": _quantiles(per_item),
        "share of clicks on the most popular 1 % of items": _rounded(top / max(clicks, 1)),
        "repeated clicks": repeated,
        "users with repeated clicks": repeating,
    }
    data |= content
    if time is not None and clicks:
        unit = unit_of(time)
        for what, value in (("first click", time.min()), ("last click", time.max())):
            data[what] = _date(int(value) // unit)
    return data


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _repeats(user: np.ndarray, item: np.ndarray) -> tuple[int, int]:
    """Clicks on an item that the same user has clicked before, and the number of users with such clicks."""
    pairs = user.astype(np.int64) << 32
    pairs |= item
    pairs.sort()
    again = pairs[1:][pairs[1:] == pairs[:-1]]
    return len(again), len(np.unique(again >> 32))


def _quantiles(counts: np.ndarray) -> dict[str, float]:
    if not len(counts):
        return dict.fromkeys((*_QUANTILES, "mean"), 0)
    values = np.percentile(counts, list(_QUANTILES.values()), method="lower")
    found: dict[str, float] = {name: int(value) for name, value in zip(_QUANTILES, values, strict=True)}
    return found | {"mean": round(float(counts.mean()), 2)}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _overview(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = data["items in items.tsv"]
    rows = []
    for what, value in data.items():
        if isinstance(value, dict):
            continue
        shown = _number(value) if isinstance(value, (int, float)) else str(value)
        if what.startswith("items with") and listed:
            shown += f" ({100 * value / listed:.1f} %)"
        if what == "repeated clicks" and data["clicks"]:
            shown += f" ({100 * value / data['clicks']:.1f} %)"
        rows.append((what, shown))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown with columns that are aligned in plain text too."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return [lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]]
