"""The description of an image LMDB: JSON under a reserved key."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from adapter4rec.data.images.decoding import RESIZE
from adapter4rec.data.images.records import Storage
from adapter4rec.utils.files import json_object

DESCRIPTION_KEY = b"\0adapter4rec"
"""Reserved key; item names contain no null byte."""

LONGEST_NAME = 511
"""Maximum length of an LMDB key in bytes."""

_FORMAT_VERSION = 2


class State(Enum):
    """State of a build."""

    BUILDING = "building"
    COMPLETE = "complete"


class Origin(Enum):
    """Origin of the images."""

    FILES = "image files"
    RELEASED = "an LMDB of the released scripts"


@dataclass(frozen=True)
class Description:
    """Description of an image LMDB.

    Attributes:
        form: storage format of the images.
        size: height and width of the pixels; None for ``Storage.FILE``.
        origin: origin of the images.
        place: path of the image folder or of the released LMDB, relative to the parent folder of this LMDB.
        numbered_files: whether item ``v123`` matches the file ``123.jpg``.
        listed_items: number of items in the item list.
        list_hash: SHA-256 of the item names, in order.
        resize: resizing method.
        state: state of the build; only complete LMDBs can be read.
        images: number of items with an image. This and the following are set when the build is complete.
        left_out: names of the items without an image, in list order.
        conversions: number of images per conversion, by lower-case name.
        content: SHA-256 of all names and image checksums in list order, in hexadecimal.
    """

    form: Storage
    size: int | None
    origin: Origin
    place: str
    numbered_files: bool
    listed_items: int
    list_hash: str
    resize: str = RESIZE
    state: State = State.BUILDING
    images: int = 0
    left_out: tuple[bytes, ...] = ()
    conversions: Mapping[str, int] | None = None
    content: str = ""

    def what(self) -> str:
        """One-line summary of the contents."""
        kept = "image files" if self.size is None else f"pixels of {self.size} x {self.size}"
        return f"{kept} ({self.resize}) from {self.origin.value} for {self.listed_items:,} items"

    def differing_options(self, other: Description, parent: Path) -> list[str]:
        """Options that differ between two LMDBs in the folder ``parent``, with both values."""
        mine, others = self._options(parent), other._options(parent)
        return [
            f"{name} {mine.get(name, 'none')} (now {others.get(name, 'none')})"
            for name in mine | others
            if mine.get(name) != others.get(name)
        ]

    def _options(self, parent: Path) -> dict[str, str]:
        """Values that determine the contents, by option of ``build_lmdb_hm.py``."""
        options = {
            "--items": f"with {self.listed_items:,} names, SHA-256 {self.list_hash[:12]}",
            "--images" if self.origin is Origin.FILES else "--convert": os.path.normpath(parent / self.place),
            "--numbered_files": str(self.numbered_files).lower(),
            "--store": self.form.value,
            "resizing": self.resize,
        }
        return options if self.size is None else options | {"--size": str(self.size)}

    def to_bytes(self) -> bytes:
        """Serialise to JSON; equal contents give equal bytes."""
        values = {
            "format": _FORMAT_VERSION,
            "form": self.form.value,
            "size": self.size,
            "origin": self.origin.value,
            "place": self.place,
            "numbered_files": self.numbered_files,
            "listed_items": self.listed_items,
            "list_hash": self.list_hash,
            "resize": self.resize,
            "state": self.state.value,
            "images": self.images,
            "left_out": [os.fsdecode(name) for name in self.left_out],
            "conversions": self.conversions or {},
            "content": self.content,
        }
        return json.dumps(values | {"checksum": _checksum(values)}).encode("ascii")

    @classmethod
    def from_bytes(cls, raw: bytes) -> Description:
        """Deserialise the result of :meth:`to_bytes`.

        Raises:
            ValueError: damaged, or another format version.
        """
        values = json_object(raw.decode("ascii"), ("format", "form", "size", "state", "checksum"))
        if values["format"] != _FORMAT_VERSION:
            raise ValueError(f"unsupported format version {values['format']}; expected {_FORMAT_VERSION}")
        if values.pop("checksum") != _checksum(values):
            raise ValueError("damaged: checksum mismatch")
        del values["format"]
        try:
            values["form"] = Storage(values["form"])
            values["origin"] = Origin(values["origin"])
            values["state"] = State(values["state"])
            values["left_out"] = tuple(os.fsencode(name) for name in values["left_out"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None


def _checksum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode("ascii"))


def hash_of_list(names: Sequence[bytes]) -> str:
    """SHA-256 of the item names, in order, in hexadecimal."""
    return hashlib.sha256(b"\n".join(names)).hexdigest()
