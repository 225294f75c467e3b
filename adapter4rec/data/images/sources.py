"""Sources of images for building an LMDB: folders of image files, matched by item name."""

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
"""Place of an image in a source: a path or a key."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_MAX_BYTES = 1 << 28
_EXAMPLES = 3
_NUMBERED_ITEM = re.compile(rb"v([0-9]+)")
_NUMBERED_FILE = re.compile(rb"v?([0-9]+)")

_STEM, _NUMBER = "stem", "number"
_Key = tuple[str, bytes]
"""Key of a file: its stem, or the number in its stem."""


class ImageSource(Protocol):
    """Images by item name. ``load`` must be thread-safe."""

    @property
    def origin(self) -> Origin:
        """Kind of source."""
        ...

    def find(self, names: Sequence[bytes]) -> Mapping[bytes, Place]:
        """Places of the images of ``names``, by name; items without an image are not included.

        Raises:
            UserError: no item has an image, or an item has several.
        """
        ...

    def load(self, place: Place) -> tuple[bytes, DecodedImage]:
        """Bytes of the image file (empty if the source has no files), and the decoded image.

        Raises:
            BrokenImageError: the image cannot be read.
        """
        ...

    def looked_for(self) -> str:
        """Searched location and naming rule, for error messages."""
        ...


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

    @property
    def origin(self) -> Origin:
        """Image files."""
        return Origin.FILES

    def find(self, names: Sequence[bytes]) -> dict[bytes, str]:
        """Paths of the images of ``names``, relative to the folder.

        Raises:
            UserError: missing folder, no image in it, no image of any item, or two images of an item.
        """
        found: dict[bytes, str] = {}
        files = self._files()
        for name in names:
            paths = files.get(self._key_of_item(name), ())
            if len(paths) > 1:
                raise UserError(
                    f"{self.folder}: both {paths[0]} and {paths[1]} match item {shown(name)}; remove one"
                )
            if paths:
                found[name] = paths[0]
        if not found:
            paths = [path for (kind, _), paths in files.items() if kind == _STEM for path in paths]
            raise UserError(
                f"{self.folder}: none of {len(paths):,} images matches an item; images: {_examples(paths)}, "
                f"…; item names: {_examples(map(shown, names))}, …. {self._rule()}"
            )
        return found

    def load(self, place: Place) -> tuple[bytes, DecodedImage]:
        """Bytes of the image file, and the decoded image.

        Raises:
            BrokenImageError: the image cannot be read.
        """
        return read_image(self.folder / os.fsdecode(place))

    def looked_for(self) -> str:
        """The folder, and how file names match item names."""
        return f"{self.folder}. {self._rule()}"

    def _rule(self) -> str:
        rule = "File names must be the item name plus a suffix"
        if self.numbered:
            rule += "; item v123 also matches 123.jpg, ignoring leading zeros"
        return f"{rule} (suffixes: {' '.join(SUFFIXES)})."

    def _key_of_item(self, name: bytes) -> _Key:
        number = _NUMBERED_ITEM.fullmatch(name) if self.numbered else None
        return (_NUMBER, number[1].lstrip(b"0")) if number else (_STEM, name)

    def _files(self) -> dict[_Key, list[str]]:
        """Image files by stem and, if ``numbered``, also by the number in the stem."""
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder; set the image folder with --images")
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
            found = f"{len(others):,} other files ({_examples(others)}, …)" if others else "no files"
            raise UserError(
                f"{self.folder}: no images, but {found}; supported suffixes: {' '.join(SUFFIXES)}"
            )
        return files


def read_image(path: Path) -> tuple[bytes, DecodedImage]:
    """Bytes of an image file, and the decoded image.

    Raises:
        BrokenImageError: the image cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise BrokenImageError(f"file too large: {size:,} bytes; the limit is {_MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"cannot read file: {error.strerror}") from None
    return data, decoded(data)


def _files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder in a fixed order; symbolic links are followed, each folder is visited once."""
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
