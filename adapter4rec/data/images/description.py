"""The description of an image database: JSON under a key that no item can have."""

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
"""No item's name: those hold no zero byte."""

LONGEST_NAME = 511
"""Bytes that an LMDB key can have."""

_FORMAT_VERSION = 2


class State(Enum):
    """How far a build has come."""

    BUILDING = "building"
    COMPLETE = "complete"


class Origin(Enum):
    """Where the images were taken from."""

    FILES = "image files"
    RELEASED = "an LMDB of the released scripts"


@dataclass(frozen=True)
class Description:
    """What is in an image database.

    Attributes:
        form: what is kept of each image.
        size: height and width of the pixels, or None in ``Storage.FILE``.
        origin: where the images were taken from.
        place: path of the image folder, or of the released LMDB, relative to the database's parent folder.
        numbered_files: whether an item ``v123`` took the file ``123.jpg``.
        listed_items: how many items the list names.
        list_hash: SHA-256 of their names, in order.
        resize: how pixels were resized.
        state: only a complete database is read.
        images: how many items have an image. This and what follows is known of a complete one only.
        left_out: names of the items without an image, in the order of the list.
        conversions: how many images went through each conversion, by its name in small letters.
        content: SHA-256 of all names and checksums in the order of the list, in hexadecimal.
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
        """What the database is for, in words."""
        kept = "image files" if self.size is None else f"pixels of {self.size} x {self.size}"
        return f"{kept} ({self.resize}) from {self.origin.value} for {self.listed_items:,} items"

    def differing_options(self, other: Description, parent: Path) -> list[str]:
        """Options by which the planned contents of two databases in ``parent`` differ, with both values."""
        mine, others = self._options(parent), other._options(parent)
        return [
            f"{name} {mine.get(name, 'none')} (now {others.get(name, 'none')})"
            for name in mine | others
            if mine.get(name) != others.get(name)
        ]

    def _options(self, parent: Path) -> dict[str, str]:
        """What determines the contents, by the option of ``build_lmdb_hm.py`` that sets it."""
        options = {
            "--items": f"with {self.listed_items:,} names of SHA-256 {self.list_hash[:12]}",
            "--images" if self.origin is Origin.FILES else "--convert": os.path.normpath(parent / self.place),
            "--numbered_files": str(self.numbered_files).lower(),
            "--store": self.form.value,
            "resizing": self.resize,
        }
        return options if self.size is None else options | {"--size": str(self.size)}

    def to_bytes(self) -> bytes:
        """JSON, without anything that differs between two builds of the same contents."""
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
        """The description that :meth:`to_bytes` gave.

        Raises:
            ValueError: damaged, or of another version.
        """
        values = json_object(raw.decode("ascii"), ("format", "form", "size", "state", "checksum"))
        if values["format"] != _FORMAT_VERSION:
            raise ValueError(
                f"format version {values['format']}; this program reads version {_FORMAT_VERSION}"
            )
        if values.pop("checksum") != _checksum(values):
            raise ValueError("damaged: the checksum does not match")
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
    """SHA-256 of item names in their order, in hexadecimal."""
    return hashlib.sha256(b"\n".join(names)).hexdigest()
