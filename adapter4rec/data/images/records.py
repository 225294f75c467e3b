"""Format of an image LMDB: the image of each item under its name, and a description.

A value is the CRC-32 of the item's name and the pixels (4 bytes, little-endian), followed by the pixels,
uint8 ``[size, size, 3]``, RGB, row-major. The description is JSON under a reserved key.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import json_object

Buffer = bytes | memoryview
PixelArray = NDArray[np.uint8]

DESCRIPTION_KEY = b"\0adapter4rec"
"""Reserved key."""

CHECKSUM_BYTES = 4

_FORMAT_VERSION = 3
_EXAMPLES = 5


@dataclass(frozen=True)
class Description:
    """Description of an image LMDB.

    Attributes:
        options: the options of ``build_lmdb_hm.py`` that determine the content, by name.
        images: number of items with an image. This and the following are set when the build is complete.
        left_out: names of the items without an image, in list order.
        content: SHA-256 of the names and checksums of all images, in hexadecimal.
    """

    options: dict[str, Any]
    images: int = 0
    left_out: tuple[bytes, ...] = ()
    content: str = ""

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self.options["size"])

    def require_same_options(self, plan: Description, folder: Path) -> None:
        """Check that this LMDB in ``folder`` has the options of ``plan``.

        Raises:
            UserError: other options; the message names them.
        """
        differing = [
            f"--{name} {self.options.get(name)} (now {value})"
            for name, value in plan.options.items()
            if self.options.get(name) != value
        ]
        if differing:
            raise UserError(
                f"{folder}: built with other options: {', '.join(differing)}. Remove it, or choose another "
                "folder with --into"
            )

    def to_bytes(self) -> bytes:
        """Serialise to JSON; equal contents give equal bytes."""
        names = [name.decode("utf-8", "surrogateescape") for name in self.left_out]
        return json.dumps(asdict(self) | {"format": _FORMAT_VERSION, "left_out": names}).encode("ascii")

    @classmethod
    def from_bytes(cls, raw: bytes, path: Path) -> Description:
        """Deserialise the result of :meth:`to_bytes`, read from the LMDB at ``path``.

        Raises:
            UserError: damaged, or another format version.
        """
        try:
            values = json_object(raw.decode("ascii"), ("format",))
            version = values.pop("format")
            if version != _FORMAT_VERSION:
                raise ValueError(f"format version {version}; expected {_FORMAT_VERSION}")
            names = [name.encode("utf-8", "surrogateescape") for name in values.pop("left_out")]
            return cls(**values, left_out=tuple(names))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: cannot read the description ({error}); remove the LMDB and build it again"
            ) from None


def pack(name: bytes, pixels: bytes) -> bytes:
    """The value of an image under the key ``name``."""
    return _checksum(name, pixels) + pixels


def unpack(name: bytes, value: Buffer, size: int) -> PixelArray:
    """The image of the key ``name``, a view of ``value``, uint8 ``[size, size, 3]``.

    Raises:
        ValueError: damaged value, value of another item, or other size.
    """
    pixels = value[CHECKSUM_BYTES:]
    if value[:CHECKSUM_BYTES] != _checksum(name, pixels):
        raise ValueError(f"the image of item {shown(name)} is damaged: checksum mismatch")
    return np.frombuffer(pixels, np.uint8).reshape(size, size, 3)


def _checksum(name: bytes, pixels: Buffer) -> bytes:
    return zlib.crc32(pixels, zlib.crc32(name)).to_bytes(CHECKSUM_BYTES, "little")


def shown(name: bytes) -> str:
    """An item name, quoted for messages."""
    return repr(name.decode("utf-8", "replace"))


def examples(names: Iterable[bytes]) -> str:
    """The first of several item names or paths, for messages."""
    first = [*islice(names, _EXAMPLES + 1)]
    return ", ".join([*map(shown, first[:_EXAMPLES]), "…"][: len(first)])
