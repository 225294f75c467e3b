"""Sheets of images with captions: rows of tiles, drawn as one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE = 96
"""Width and height of a tile, in pixels."""

_GAP, _MARGIN, _LINE_HEIGHT, _HEADING = 8, 16, 14, 26
_LEAST = 3
"""Minimum number of columns of a group, so that its heading fits."""
_FRAME = (200, 80, 0)
_INK, _FAINT, _PAPER, _LINE = (30, 30, 30), (90, 90, 90), (255, 255, 255), (190, 190, 190)


@dataclass(frozen=True)
class Tile:
    """An image with a caption below, which is wrapped and never cut. A framed tile has a coloured border."""

    image: Image.Image
    caption: str = ""
    framed: bool = False


@dataclass(frozen=True)
class Row:
    """A heading above groups of tiles; every row of a sheet has the same number of groups."""

    heading: str
    groups: Sequence[Sequence[Tile]]


def draw_sheet(headings: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """Draw rows of tiles.

    Args:
        headings: of the groups, from left to right.
        rows: the rows. Groups start at the same position in all rows.
    """
    font, small = _font(14), _font(11)
    step = TILE + _GAP
    columns = [max(_LEAST, *(len(row.groups[at]) for row in rows)) for at in range(len(headings))]
    starts = [_MARGIN + sum(columns[:at]) * step + 2 * at * _GAP for at in range(len(headings))]
    width = starts[-1] + columns[-1] * step - _GAP + _MARGIN
    captions = [[[_wrapped(tile.caption, small) for tile in group] for group in row.groups] for row in rows]
    heights = [
        _HEADING
        + TILE
        + _LINE_HEIGHT * max((len(lines) for group in row for lines in group), default=0)
        + _GAP
        for row in captions
    ]
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _HEADING + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, heading in zip(starts, headings, strict=True):
        draw.text((x, _MARGIN), heading, _INK, font)
        if x > _MARGIN:
            draw.line([(x - 1.5 * _GAP, _MARGIN), (x - 1.5 * _GAP, sheet.height - _MARGIN)], _LINE, 2)
    y = _MARGIN + _HEADING
    for row, lines_of_row, height in zip(rows, captions, heights, strict=True):
        draw.text((_MARGIN, y), row.heading, _INK, font)
        for start, group, lines_of_group in zip(starts, row.groups, lines_of_row, strict=True):
            for at, (tile, lines) in enumerate(zip(group, lines_of_group, strict=True)):
                x, top = start + at * step, y + _HEADING
                picture = tile.image.resize((TILE, TILE), Image.Resampling.BICUBIC)
                sheet.paste(picture, (x, top))
                if tile.framed:
                    edge = [(x - 3, top - 3), (x + TILE + 2, top + TILE + 2)]
                    draw.rectangle(edge, outline=_FRAME, width=3)
                for number, line in enumerate(lines):
                    draw.text((x, top + TILE + 3 + number * _LINE_HEIGHT), line, _FAINT, small)
        y += height
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines no wider than a tile; words that are wider are broken."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}".strip()
            if font.getlength(joined) <= TILE:
                line = joined
                continue
            if line:
                lines.append(line)
            line = word
            while font.getlength(line) > TILE:
                fitting = next(
                    (end for end in range(len(line) - 1, 1, -1) if font.getlength(line[:end]) <= TILE), 1
                )
                lines.append(line[:fitting])
                line = line[fitting:]
        if line:
            lines.append(line)
    return lines


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path  # its font has more alphabets than Pillow's

    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
