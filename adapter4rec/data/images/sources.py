"""Folders of image files, matched with items by name or by a column of paths."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import UnidentifiedImageError

from adapter4rec.data.images.database import examples, shown
from adapter4rec.data.images.decoding import opened_image
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import composed

_NUMBERED = re.compile(rb"v?([0-9]+)")
_OF_SYSTEMS = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""Files and folders that macOS, Windows and file servers add to folders of pictures."""


def image_files(folder: Path, names: Sequence[bytes], *, numbered: bool = False) -> dict[bytes, Path]:
    """The image files of the items ``names`` in a folder, searched recursively.

    Names are compared in Unicode's composed form. Hidden files are ignored. The suffix means nothing: of
    several files of an item, the one that Pillow recognises is its image.

    Args:
        folder: the folder.
        names: item names. An item matches the file whose name, with or without its suffix, is the item's.
        numbered: whether item ``v123`` matches the file stems ``123`` and ``v123``, ignoring leading zeros
            (as in H&M).

    Raises:
        UserError: missing folder, no image of any item, or two images of an item.
    """

    def key(name: bytes) -> bytes:
        number = _NUMBERED.fullmatch(name) if numbered else None
        return number[1].lstrip(b"0") if number else name

    files: dict[bytes, list[Path]] = defaultdict(list)
    count = 0
    for count, path in enumerate(files_below(folder), 1):  # noqa: B007
        for stem in {path.name, path.stem}:
            files[key(composed(os.fsencode(stem)))].append(path)
    found = {name: _one_image(paths, name) for name in names if (paths := files.get(key(name)))}
    if not found:
        there = [os.fsencode(path.relative_to(folder)) for path in files_below(folder)]
        hint = "; item v123 also matches 123.jpg, ignoring leading zeros" if numbered else ""
        raise UserError(
            f"none of {count:,} files matches an item; files: {examples(there)}; items: {examples(names)}. "
            f"Searched {folder} for files named after the item{hint}."
        )
    return found


def image_files_by_path(folder: Path, paths: Mapping[bytes, str]) -> dict[bytes, Path]:
    """The image files of items, from their paths.

    Args:
        folder: the folder that the paths are relative to.
        paths: path of the image of each item, by item name; empty for none.

    Raises:
        UserError: missing folder, or none of the paths is a file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the image folder with --images")
    known = {composed(os.fsencode(path.relative_to(folder))): path for path in files_below(folder)}
    found = {}
    for name, path in paths.items():
        if file := known.get(composed(os.fsencode(os.path.normpath(path.strip())))):
            found[name] = file
    if not found:
        raise UserError(
            f"none of {len(paths):,} paths in the image column is a file in {folder}; paths: "
            f"{examples(map(os.fsencode, paths.values()))}; files: {examples(known)}"
        )
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder in a fixed order, but for hidden ones and those that systems add.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the image folder with --images")
    visited = set()  # a symbolic link may lead to a folder twice, or to a parent of its own
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(filter(_is_of_user, folders))
        yield from (Path(parent, name) for name in sorted(filter(_is_of_user, names)))


def _is_of_user(name: str) -> bool:
    return not name.startswith(".") and name not in _OF_SYSTEMS


def _one_image(paths: list[Path], name: bytes) -> Path:
    """The image among the files of an item; the first if none is one.

    Raises:
        UserError: two of them are images.
    """
    if len(paths) == 1:
        return paths[0]
    images = [path for path in paths if _is_image(path)]
    if len(images) > 1:
        raise UserError(f"both {images[0]} and {images[1]} match item {shown(name)}; remove one")
    return (images or paths)[0]


def _is_image(path: Path) -> bool:
    try:
        with opened_image(path):
            return True
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
