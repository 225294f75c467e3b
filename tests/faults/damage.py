"""Damage to files: of bytes, and of values in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

WEIRD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, -0.5, 1.5, 1e308, "", "1", "nan", "a\udcff", "\0"),
    *([], {}, [None], [[]], {"": None}, {"a": {"b": []}}, [1, "a"], "x" * 5000),
)
LFS = b"version https://git-lfs.github.com/spec/v1"
TEXTS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"3",
    b'"a"',
    b"NaN",
    b"1e999",
    b"\xff\xfe{",
    b"version https://git-lfs",
    b"<html>",
)
DEEP = b"[" * 10_000, b'{"a":' * 10_000, b"[" * 100_000 + b"]" * 100_000


def places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON document are."""
    yield place
    if isinstance(content, dict):
        for name, value in content.items():
            yield from places(value, (*place, name))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from places(value, (*place, index))


def changed(content: Any, place: tuple[Any, ...], change: str, value: Any) -> Any:
    """A JSON document of which one value is replaced, removed, or has an unknown neighbour."""
    if not place:
        return value
    content = json.loads(json.dumps(content))
    inside = content
    for step in place[:-1]:
        inside = inside[step]
    if change == "remove":
        del inside[place[-1]]
    elif change == "add" and isinstance(inside, dict):
        inside["of a newer version"] = value
    else:
        inside[place[-1]] = value
    return content


def damaged_json(chance: Random, seed: bytes) -> bytes:
    """JSON lines of which one value is changed; the text itself if it is not JSON."""
    try:
        found = [json.loads(line) for line in seed.splitlines()] or [None]
    except (ValueError, RecursionError):
        return seed
    line = chance.randrange(len(found))
    place = chance.choice([*places(found[line])])
    found[line] = changed(
        found[line], place, chance.choice(("replace", "replace", "remove", "add")), chance.choice(WEIRD)
    )
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


def damaged_bytes(chance: Random, seed: bytes) -> bytes:
    """Bytes of which some are changed, removed, repeated or inserted."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        to = min(len(content), at + chance.choice((1, 1, 2, 4, 8, 64)))
        kind = chance.randrange(5)
        if kind == 0:
            content[at:to] = bytes(chance.randrange(256) for _ in range(to - at))
        elif kind == 1:
            del content[at:to]
        elif kind == 2:
            content[at:at] = content[at:to] * chance.choice((1, 2, 1000))
        elif kind == 3 and at < len(content):
            content[at] ^= 1 << chance.randrange(8)
        else:
            content[at:] = b""
    return bytes(content)


def damaged(chance: Random, seed: bytes) -> bytes:
    """A damaged copy of a file."""
    kind = chance.randrange(20)
    if kind == 0:
        return chance.choice(TEXTS)
    if kind == 1:
        return chance.choice(DEEP)
    return damaged_json(chance, seed) if kind < 10 else damaged_bytes(chance, seed)
