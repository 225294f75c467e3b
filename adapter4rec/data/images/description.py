"""What an LMDB of item images records about itself: its options, and the file of each image."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import Count, Object, Positive, checked, record_of

BUILDER = "python build_lmdb_hm.py"

Buffer = bytes | memoryview

DESCRIPTION_KEY = b"\0adapter4rec"
SOURCES_KEY = b"\1sources"
"""Reserved keys. Item names contain no control character."""

_FORMAT_VERSION = 5


@dataclass(frozen=True)
class _Version:
    format: int


@dataclass(frozen=True)
class _Options:
    size: Positive


@dataclass(frozen=True)
class _Stored:
    """The stored form of a description."""

    format: int
    options: Object
    images: Count
    left_out: list[str]
    content: str


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

    def command(self, path: Path, **changes: Any) -> str:
        """The command that builds this LMDB.

        Args:
            path: of the LMDB.
            changes: options that replace those of the description.
        """
        options = {"into": path} | self.options | changes
        for name in ("images", "convert"):
            if name in options:
                options[name] = os.path.normpath(path.absolute().parent / str(options[name]))
        words = [f"--{name} {as_shell_word(value)}" for name, value in options.items() if value is not None]
        return " ".join([BUILDER, *words])

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
            content = record_of(raw, Object, most=len(raw))
            if (version := checked(content, _Version).format) != _FORMAT_VERSION:
                raise ValueError(f"format version {version}; expected {_FORMAT_VERSION}")
            found = checked(content, _Stored, exact=True)
            checked(found.options, _Options)
            names = [name.encode("utf-8", "surrogateescape") for name in found.left_out]
            return cls(found.options, found.images, tuple(names), found.content)
        except ValueError as error:
            raise UserError(
                f"{path}: cannot read the description ({error}); remove the LMDB and build it again"
            ) from None


def as_shell_word(value: Any) -> str:
    """A value of an option as one word of a shell command."""
    return shlex.quote(str(value).lower() if isinstance(value, bool) else str(value))


@dataclass(frozen=True)
class ImageSource:
    """The file that the image of an item was made from.

    Attributes:
        file: its path, relative to the folder of images; empty if the item has no file, or its image comes
            from another LMDB.
        size: bytes.
        changed: time of the last change, in nanoseconds.
        content: SHA-256 of the file, in hexadecimal.
        fault: why it gives no image; empty if it does.
    """

    file: str = ""
    size: int = 0
    changed: int = 0
    content: str = ""
    fault: str = ""

    def to_bytes(self) -> bytes:
        """Serialise to JSON."""
        return json.dumps([self.file, self.size, self.changed, self.content, self.fault]).encode("ascii")

    @classmethod
    def from_bytes(cls, raw: Buffer) -> ImageSource:
        """Deserialise the result of :meth:`to_bytes`; raises a ValueError if it is damaged."""
        return cls(*record_of(bytes(raw), tuple[str, Count, int, str, str]))
