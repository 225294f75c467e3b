"""Typed reading of JSON that this project has written: settings, metrics, ledgers, descriptions of files.

A file may be damaged, edited by hand, or written by another version. Its content is checked against a
dataclass (or another annotated type) before it is used.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import read_regular

T = TypeVar("T")

_MOST = 2**63 - 1
Integer = Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
"""An integer of 64 bits; JSON has integers of any size, which no array or float can hold."""
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
"""An integer of at least 0, of 64 bits."""
Positive = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
"""An integer of at least 1, of 64 bits."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]
"""A duration, or another number of at least 0."""
Object = dict[str, Any]
"""A JSON object whose entries are checked where they are used."""
MOST_BYTES = 8 << 20
"""Maximum size of a record. Python objects take up to 30 times the size of their JSON."""


def read_record(path: Path, kind: type[T]) -> T:
    """Read a JSON file.

    Args:
        path: the file, of at most :data:`MOST_BYTES`.
        kind: type of the content; unknown fields of a dataclass are ignored.

    Raises:
        OSError: the file cannot be read.
        UserError: not a regular file, too large, not JSON, or of another type.
    """
    try:
        return record_of(read_regular(path, MOST_BYTES), kind)
    except ValueError as error:
        raise damaged(path, error) from None


def record_of(raw: bytes | str, kind: type[T], most: int = MOST_BYTES) -> T:
    """Parse JSON of a type.

    Args:
        raw: the JSON.
        kind: type of the content; unknown fields of a dataclass are ignored.
        most: maximum size.

    Raises:
        ValueError: too long, not JSON, or of another type; the message is one line.
    """
    if len(raw) > most:
        raise ValueError(f"longer than {most:,} bytes")
    try:
        # Not msgspec.json: it refuses names of files that are not UTF-8, which are written as surrogates.
        content = json.loads(raw, parse_float=_finite, parse_constant=_finite)
        return msgspec.convert(content, kind)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def checked(content: Any, kind: type[T], *, exact: bool = False) -> T:
    """Check parsed JSON against a type.

    Args:
        content: what :func:`record_of` has returned.
        kind: the type.
        exact: whether a dataclass must have all of its fields, also those with a default, and no others.

    Raises:
        ValueError: another type, or other fields; the message is one line.
    """
    if exact and isinstance(content, dict):
        known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        if missing := sorted(known - content.keys()):
            raise ValueError(f"missing: {', '.join(missing)}")
        if unknown := sorted(content.keys() - known):
            raise ValueError(f"unknown: {', '.join(unknown)}")
    return msgspec.convert(content, kind)


def checked_in(path: Path, content: Any, kind: type[T], *, exact: bool = False) -> T:
    """:func:`checked`, for content that was read from a file.

    Raises:
        UserError: another type, or other fields; the message names the file.
    """
    try:
        return checked(content, kind, exact=exact)
    except ValueError as error:
        raise damaged(path, error) from None


def damaged(path: Path | str, error: Exception | str) -> UserError:
    """The error for a file whose content is not what it should be."""
    return UserError(f"{path}: damaged, edited, or written by another version of this project ({error})")
