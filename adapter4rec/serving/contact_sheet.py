"""Contact sheets: an image of users' click histories next to their recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adapter4rec.data.images.store import Pixels
from adapter4rec.serving.candidates import Candidates, RankedItems
from adapter4rec.utils.files import atomic_file

_TILE, _GAP, _MARGIN, _LABEL = 96, 6, 16, 26
_HISTORY = 8
"""Maximum number of clicks shown per user; the latest ones are kept."""
_LEAST = 3
"""Minimum number of columns on each side, so that the headings fit."""
_NEW = (200, 80, 0)
_INK, _PAPER, _LINE = (30, 30, 30), (255, 255, 255), (190, 190, 190)


def draw_contact_sheet(
    candidates: Candidates,
    users: Sequence[tuple[str, np.ndarray]],
    found: Sequence[RankedItems],
    path: Path,
) -> None:
    """Write a PNG with one row per user: latest clicks on the left, recommendations on the right.

    Args:
        candidates: of an image run.
        users: name and click history (item numbers, oldest first) of each user.
        found: recommendations for each user. Items that are new to the model are framed.
        path: the PNG file.
    """
    left = max(_LEAST, min(_HISTORY, max(len(history) for _, history in users)))
    right = max(_LEAST, *map(len, found))
    step = _TILE + _GAP
    middle = _MARGIN + left * step + 2 * _GAP
    width = middle + 2 * _GAP + right * step + _MARGIN
    height = _LABEL + _MARGIN + len(users) * (step + _LABEL) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    draw.text((_MARGIN, _MARGIN // 2), "clicked, latest on the right", _INK, font)
    new = "; framed: new items" if any(one.new for ranked in found for one in ranked) else ""
    draw.text((middle + 2 * _GAP, _MARGIN // 2), f"recommended, best on the left{new}", _INK, font)
    for number, ((user, history), ranked) in enumerate(zip(users, found, strict=True)):
        y = _MARGIN + number * (step + _LABEL) + 2 * _LABEL - 4
        draw.text((_MARGIN, y - _LABEL + 4), user, _INK, font)
        clicked = history[-left:].tolist()
        tiles = [(_MARGIN + at * step, item, False) for at, item in enumerate(clicked, left - len(clicked))]
        tiles += [
            (middle + 2 * _GAP + at * step, candidates.number_of[one.item], one.new)
            for at, one in enumerate(ranked)
        ]
        for x, item, is_new in tiles:
            content = candidates.content_of(item)
            assert isinstance(content, Pixels)
            picture = Image.fromarray(content.pixels[0].numpy())
            sheet.paste(picture.resize((_TILE, _TILE), Image.Resampling.BICUBIC), (x, y))
            if is_new:
                draw.rectangle([(x - 3, y - 3), (x + _TILE + 2, y + _TILE + 2)], outline=_NEW, width=3)
    draw.line([(middle, _MARGIN // 2), (middle, height - _MARGIN)], _LINE, 2)
    with atomic_file(path) as aside:
        sheet.save(aside, format="PNG")
