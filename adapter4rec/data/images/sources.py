"""Where the images of a build come from: the files of a folder, each found by its item's name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from adapter4rec.data.images.decoding import BrokenImageError, DecodedImage, decoded
from adapter4rec.data.images.description import Origin
from adapter4rec.data.images.records import shown
from adapter4rec.utils.errors import UserError

Place = str | bytes
"""Where a source has an image: a path, or a key."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_MOST_BYTES = 1 << 28
_EXAMPLES = 3
_NUMBERED_ITEM = re.compile(rb"v([0-9]+)")
_NUMBERED_FILE = re.compile(rb"v?([0-9]+)")

_STEM, _NUMBER = "stem", "number"
_Key = tuple[str, bytes]
"""What a file is found by: its stem, or the number in it."""


class ImageSource(Protocol):
    """Images by item name. ``load`` is called from several threads."""

    @property
    def origin(self) -> Origin:
        """Which kind of source it is."""
        ...

    def find(self, names: Sequence[bytes]) -> Mapping[bytes, Place]:
        """Places of the images of ``names``; items without an image are left out.

        Raises:
            UserError: none is there, or it is not clear which one belongs to an item.
        """
        ...

    def load(self, place: Place) -> tuple[bytes, DecodedImage]:
        """The bytes of an image file (none where the source has no files), and the image itself.

        Raises:
            BrokenImageError: it cannot be used.
        """
        ...

    def looked_for(self) -> str:
        """Where an item's image was looked for, in words."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A folder of image files, folders inside it included.

    Attributes:
        folder: where they lie.
        numbered: whether the file of an item ``v123`` has the stem ``123`` or ``v123``, leading zeros ignored
            (as the images of H&M are named). All other items have a file whose stem is their name.
    """

    folder: Path
    numbered: bool = False

    @property
    def origin(self) -> Origin:
        """Image files."""
        return Origin.FILES

    def find(self, names: Sequence[bytes]) -> dict[bytes, str]:
        """Paths, relative to the folder, of the images of ``names``.

        Raises:
            UserError: no folder, no image in it, none for any of the items, or two for one item.
        """
        found: dict[bytes, str] = {}
        files = self._files()
        for name in names:
            paths = files.get(self._key_of_item(name), ())
            if len(paths) > 1:
                raise UserError(
                    f"{self.folder}: both {paths[0]} and {paths[1]} belong to item {shown(name)}; "
                    "remove one of them"
                )
            if paths:
                found[name] = paths[0]
        if not found:
            paths = [path for (kind, _), paths in files.items() if kind == _STEM for path in paths]
            raise UserError(
                f"{self.folder}: none of its {len(paths):,} images belongs to an item: they have names like "
                f"{_examples(paths)}, and the items like {_examples(map(shown, names))}. {self._rule()}"
            )
        return found

    def load(self, place: Place) -> tuple[bytes, DecodedImage]:
        """Bytes of a file, and the image that it holds.

        Raises:
            BrokenImageError: the file cannot be read, or is no image that can be used.
        """
        return read_picture(self.folder / os.fsdecode(place))

    def looked_for(self) -> str:
        """The folder, and how files and items belong together."""
        return f"in {self.folder}. {self._rule()}"

    def _rule(self) -> str:
        rule = "A file belongs to the item whose name is the file's without its suffix"
        if self.numbered:
            rule += "; to an item v123 belongs 123.jpg as well as v123.jpg, leading zeros ignored"
        return f"{rule} (suffixes: {' '.join(SUFFIXES)})."

    def _key_of_item(self, name: bytes) -> _Key:
        number = _NUMBERED_ITEM.fullmatch(name) if self.numbered else None
        return (_NUMBER, number[1].lstrip(b"0")) if number else (_STEM, name)

    def _files(self) -> dict[_Key, list[str]]:
        """Image files by stem and, where that is a number, also by this."""
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: there is no such folder of images; name it with --images")
        files: defaultdict[_Key, list[str]] = defaultdict(list)
        others = []
        for path in _files_below(self.folder):
            if path.suffix.lower() not in SUFFIXES:
                others.append(path.name)
                continue
            place, stem = str(path.relative_to(self.folder)), os.fsencode(path.stem)
            files[_STEM, stem].append(place)
            number = _NUMBERED_FILE.fullmatch(stem) if self.numbered else None
            if number:
                files[_NUMBER, number[1].lstrip(b"0")].append(place)
        if not files:
            there = f"{len(others):,} other files, like {_examples(others)}" if others else "nothing"
            raise UserError(
                f"{self.folder}: there are no images in this folder or below it, but {there}; "
                f"images end in {' '.join(SUFFIXES)}"
            )
        return files


def read_picture(path: Path) -> tuple[bytes, DecodedImage]:
    """Bytes of an image file, and the image that it holds.

    Raises:
        BrokenImageError: the file cannot be read, or is no image that can be used.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise BrokenImageError(f"the file has {size:,} bytes; {_MOST_BYTES:,} are the most")
        data = path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"the file cannot be read: {error.strerror}") from None
    return data, decoded(data)


def _files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder in a fixed order, linked folders included, each folder once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(files):
            yield Path(parent, name)


def _examples(names: Iterable[str]) -> str:
    return ", ".join(islice(names, _EXAMPLES))
