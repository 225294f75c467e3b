"""Contact sheets: an image of users' click histories next to their recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adapter4rec.utils.files import atomic_file

_TILE, _GAP, _MARGIN, _LABEL = 96, 6, 16, 26
_HISTORY = 8
"""Maximum number of clicks shown per user; the latest ones are kept."""
_LEAST = 3
"""Minimum number of columns on each side, so that the headings fit."""
_NEW = (200, 80, 0)
_INK, _PAPER, _LINE = (30, 30, 30), (255, 255, 255), (190, 190, 190)


@dataclass(frozen=True)
class SheetRow:
    """One user of a contact sheet.

    Attributes:
        user: user name.
        clicked: images of clicked items, each uint8 ``[height, width, 3]``, oldest first.
        recommended: images of recommended items, best first.
        new: which recommended items are new to the model; these are framed.
    """

    user: str
    clicked: Sequence[np.ndarray]
    recommended: Sequence[np.ndarray]
    new: Sequence[bool]


def draw_contact_sheet(rows: list[SheetRow], path: Path) -> None:
    """Write a PNG with one row per user: latest clicks on the left, recommendations on the right."""
    left = max(_LEAST, min(_HISTORY, max(len(row.clicked) for row in rows)))
    right = max(_LEAST, *(len(row.recommended) for row in rows))
    step = _TILE + _GAP
    middle = _MARGIN + left * step + 2 * _GAP
    width = middle + 2 * _GAP + right * step + _MARGIN
    height = _LABEL + _MARGIN + len(rows) * (step + _LABEL) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    draw.text((_MARGIN, _MARGIN // 2), "clicked, latest on the right", _INK, font)
    new = "; framed: new items" if any(any(row.new) for row in rows) else ""
    draw.text((middle + 2 * _GAP, _MARGIN // 2), f"recommended, best on the left{new}", _INK, font)
    for number, row in enumerate(rows):
        top = _LABEL + _MARGIN + number * (step + _LABEL)
        draw.text((_MARGIN, top), row.user, _INK, font)
        clicked = row.clicked[-left:]
        _paste(sheet, clicked, _MARGIN + (left - len(clicked)) * step, top + _LABEL - 4)
        _paste(sheet, row.recommended, middle + 2 * _GAP, top + _LABEL - 4)
        for place in np.flatnonzero(row.new).tolist():
            x, y = middle + 2 * _GAP + place * step, top + _LABEL - 4
            draw.rectangle([(x - 3, y - 3), (x + _TILE + 2, y + _TILE + 2)], outline=_NEW, width=3)
    draw.line([(middle, _MARGIN // 2), (middle, height - _MARGIN)], _LINE, 2)
    with atomic_file(path) as aside:
        sheet.save(aside, format="PNG")


def _paste(sheet: Image.Image, pictures: Sequence[np.ndarray], x: int, y: int) -> None:
    for number, pixels in enumerate(pictures):
        tile = Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
        sheet.paste(tile, (x + number * (_TILE + _GAP), y))
