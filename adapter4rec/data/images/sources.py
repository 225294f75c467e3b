"""Sources of images for building an LMDB: folders of image files, matched by item name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from adapter4rec.data.images.database import examples, shown
from adapter4rec.data.images.decoding import decoded
from adapter4rec.utils.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_NUMBERED = re.compile(rb"v?([0-9]+)")


@dataclass(frozen=True)
class FolderSource:
    """A folder of image files, searched recursively.

    Attributes:
        folder: the folder.
        numbered: whether item ``v123`` matches the file stems ``123`` and ``v123``, ignoring leading zeros
            (as in H&M). Other items match the file whose stem is the item name.
    """

    folder: Path
    numbered: bool = False

    def find(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Paths of the images of ``names``, relative to the folder.

        Raises:
            UserError: missing folder, no image of any item, or two images of an item.
        """
        found: dict[bytes, bytes] = {}
        files = self._files()
        for name in names:
            paths = files.get(self._key(name), [])
            if len(paths) > 1:
                raise UserError(
                    f"{self.folder}: both {os.fsdecode(paths[0])} and {os.fsdecode(paths[1])} match item "
                    f"{shown(name)}; remove one"
                )
            if paths:
                found[name] = paths[0]
        if not found:
            images = [path for paths in files.values() for path in paths]
            numbered = "; item v123 also matches 123.jpg, ignoring leading zeros" if self.numbered else ""
            raise UserError(
                f"none of {len(images):,} images matches an item; images: {examples(images)}; "
                f"items: {examples(names)}. Searched {self.folder} for files named after the item "
                f"({' '.join(SUFFIXES)}){numbered}."
            )
        return found

    def load(self, place: bytes) -> Image.Image:
        """The decoded image, RGB.

        Raises:
            BrokenImageError: the image cannot be read.
        """
        return decoded(self.folder / os.fsdecode(place))

    def _key(self, name: bytes) -> bytes:
        """The item name or file stem, or its number if ``numbered``."""
        number = _NUMBERED.fullmatch(name) if self.numbered else None
        return number[1].lstrip(b"0") if number else name

    def _files(self) -> dict[bytes, list[bytes]]:
        """Image files by :meth:`_key` of their stems, as sorted relative paths."""
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder; set the image folder with --images")
        files = defaultdict(list)
        visited = set()  # a symbolic link may lead to a folder twice, or to a parent of its own
        for parent, folders, names in os.walk(self.folder, followlinks=True):
            if (real := os.path.realpath(parent)) in visited:
                folders.clear()
                continue
            visited.add(real)
            folders.sort()
            for path in (Path(parent, name) for name in sorted(names)):
                if path.suffix.lower() in SUFFIXES:
                    place = os.fsencode(path.relative_to(self.folder))
                    files[self._key(os.fsencode(path.stem))].append(place)
        return files
