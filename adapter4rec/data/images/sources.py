"""Folders of image files, matched with items by name or by a column of paths."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import UnidentifiedImageError

from adapter4rec.data.images.database import examples, shown
from adapter4rec.data.images.decoding import opened_image
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash, files_under
from adapter4rec.utils.plain_text import composed

_NUMBERED = re.compile(rb"v?([0-9]+)")
_WHITE = re.compile(rb"\s+")
_OF_SYSTEMS = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""Files and folders that macOS, Windows and file servers add to folders of pictures."""
SEVERAL = "several images; keep one"
"""Why an item has no image although files match it."""


@dataclass(frozen=True)
class MatchedFiles:
    """The image files of items.

    Attributes:
        images: the image of each item that has one, by item name.
        several: the images of each item that has several with different content.
    """

    images: dict[bytes, Path]
    several: dict[bytes, list[Path]]


def image_files(folder: Path, names: Sequence[bytes], *, numbered: bool = False) -> dict[bytes, Path]:
    """The image files of items; see :func:`matched_files`.

    Raises:
        UserError: as there, or several images of an item; the message lists all such items.
    """
    found = matched_files(folder, names, numbered=numbered)
    if found.several:
        lines = [f"{shown(name)}: {', '.join(map(str, paths))}" for name, paths in found.several.items()]
        raise UserError("\n  ".join([f"{len(lines):,} items have several images; keep one of each", *lines]))
    return found.images


def matched_files(folder: Path, names: Sequence[bytes], *, numbered: bool = False) -> MatchedFiles:
    """The image files of the items ``names`` in a folder, searched recursively.

    Names are compared in Unicode's composed form, and with each run of white space as an underscore, as
    ``Dataset.prepare`` writes the names of items. Hidden files are ignored. The suffix means nothing: of
    several files of an item, the one that Pillow recognises is its image, and the first of equal files.

    Args:
        folder: the folder.
        names: item names. An item matches the file whose name, with or without its suffix, is the item's.
        numbered: whether item ``v123`` matches the file stems ``123`` and ``v123``, ignoring leading zeros
            (as in H&M).

    Raises:
        UserError: missing folder, or no file of any item.
    """

    def key(name: bytes) -> bytes:
        number = _NUMBERED.fullmatch(name) if numbered else None
        return number[1].lstrip(b"0") if number else name

    files: dict[bytes, list[Path]] = defaultdict(list)
    count = 0
    for count, path in enumerate(files_below(folder), 1):  # noqa: B007
        for stem in {path.name, path.stem}:
            files[key(_WHITE.sub(b"_", composed(os.fsencode(stem))))].append(path)
    found = {name: _images_of(paths) for name in names if (paths := files.get(key(name)))}
    if not found:
        there = [os.fsencode(path.relative_to(folder)) for path in files_below(folder)]
        hint = "; item v123 also matches 123.jpg, ignoring leading zeros" if numbered else ""
        raise UserError(
            f"none of {count:,} files matches an item; files: {examples(there)}; items: {examples(names)}. "
            f"Searched {folder} for files named after the item{hint}."
        )
    return MatchedFiles(
        {name: paths[0] for name, paths in found.items() if len(paths) == 1},
        {name: paths for name, paths in found.items() if len(paths) > 1},
    )


def matched_paths(folder: Path, paths: Mapping[bytes, str]) -> MatchedFiles:
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
    return MatchedFiles(found, {})


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder in a fixed order, but for hidden ones and those that systems add.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set the image folder with --images")
    return (path for path in files_under(folder, _is_of_user) if _is_of_user(path.name))


def _is_of_user(name: str) -> bool:
    return not name.startswith(".") and name not in _OF_SYSTEMS


def _images_of(paths: list[Path]) -> list[Path]:
    """The images among the files of an item, without repeated content; the first file if none is one."""
    if len(paths) == 1:
        return paths
    images = [path for path in paths if _is_image(path)]
    if len(images) > 1:  # of equal files, the first
        images = list({file_hash(path): path for path in reversed(images)}.values())[::-1]
    return images or paths[:1]


def _is_image(path: Path) -> bool:
    try:
        with opened_image(path):
            return True
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
