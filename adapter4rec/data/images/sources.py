"""Folders of image files, matched by item name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from adapter4rec.data.images.database import examples, shown
from adapter4rec.utils.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_NUMBERED = re.compile(rb"v?([0-9]+)")


def image_files(folder: Path, names: Sequence[bytes], *, numbered: bool = False) -> dict[bytes, Path]:
    """The image files of the items ``names`` in a folder, searched recursively.

    Args:
        folder: the folder.
        names: item names. An item matches the file whose stem is its name.
        numbered: whether item ``v123`` matches the file stems ``123`` and ``v123``, ignoring leading zeros
            (as in H&M).

    Raises:
        UserError: missing folder, no image of any item, or two images of an item.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the image folder with --images")

    def key(name: bytes) -> bytes:
        number = _NUMBERED.fullmatch(name) if numbered else None
        return number[1].lstrip(b"0") if number else name

    files: dict[bytes, list[Path]] = defaultdict(list)
    for path in _images_below(folder):
        files[key(os.fsencode(path.stem))].append(path)
    found = {}
    for name in names:
        if paths := files.get(key(name)):
            found[name] = paths[0]
            if len(paths) > 1:
                raise UserError(f"both {paths[0]} and {paths[1]} match item {shown(name)}; remove one")
    if not found:
        images = [os.fsencode(path.relative_to(folder)) for paths in files.values() for path in paths]
        hint = "; item v123 also matches 123.jpg, ignoring leading zeros" if numbered else ""
        raise UserError(
            f"none of {len(images):,} images matches an item; images: {examples(images)}; "
            f"items: {examples(names)}. Searched {folder} for files named after the item "
            f"({' '.join(SUFFIXES)}){hint}."
        )
    return found


def _images_below(folder: Path) -> list[Path]:
    """All image files, in a fixed order."""
    images = []
    visited = set()  # a symbolic link may lead to a folder twice, or to a parent of its own
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        paths = (Path(parent, name) for name in sorted(names))
        images += [path for path in paths if path.suffix.lower() in SUFFIXES]
    return images
