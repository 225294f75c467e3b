"""Contact sheets: an image of users' click histories next to their recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from adapter4rec.data.images.sheets import Row, Tile, draw_sheet
from adapter4rec.data.images.store import Pixels
from adapter4rec.serving.candidates import Candidates, RankedItem, RankedItems
from adapter4rec.utils.files import atomic_file

_HISTORY = 8
"""Maximum number of clicks shown per user; the latest ones are kept."""


def contact_sheet(
    candidates: Candidates, users: Sequence[tuple[str, np.ndarray]], found: Sequence[RankedItems]
) -> Image.Image:
    """One row per user: latest clicks on the left, recommendations on the right, with names and scores.

    Args:
        candidates: of an image run.
        users: name and click history (item numbers, oldest first) of each user.
        found: recommendations for each user. Items that are new to the model are framed.
    """

    def clicked(item: int) -> Tile:
        return Tile(_picture(candidates, item), _caption(candidates, item))

    def recommended(one: RankedItem) -> Tile:
        item = candidates.number_of[one.item]
        caption = f"{_caption(candidates, item)}\n{one.score:.3f}"
        return Tile(_picture(candidates, item), caption, framed=one.new)

    rows = [
        Row(user, (list(map(clicked, history[-_HISTORY:].tolist())), list(map(recommended, ranked))))
        for (user, history), ranked in zip(users, found, strict=True)
    ]
    new = "; framed: new items" if any(one.new for ranked in found for one in ranked) else ""
    return draw_sheet(("clicked, latest on the right", f"recommended, best on the left{new}"), rows)


def draw_contact_sheet(
    candidates: Candidates,
    users: Sequence[tuple[str, np.ndarray]],
    found: Sequence[RankedItems],
    path: Path,
) -> None:
    """Write a :func:`contact_sheet` as a PNG file."""
    sheet = contact_sheet(candidates, users, found)
    with atomic_file(path) as aside:
        sheet.save(aside, format="PNG")


def _caption(candidates: Candidates, item: int) -> str:
    """Name and title of an item."""
    return f"{candidates.names[item - 1]}\n{candidates.titles[item - 1]}"


def _picture(candidates: Candidates, item: int) -> Image.Image:
    content = candidates.content_of(item)
    assert isinstance(content, Pixels)
    return Image.fromarray(content.pixels[0].numpy())
