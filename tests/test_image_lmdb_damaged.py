"""Flipped bits in the pages of an image LMDB: the process that reads goes on, or ends with its name."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb
import pytest

from adapter4rec.data.images.database import Description, ImageDatabase, pack
from adapter4rec.data.images.description import SOURCES_KEY, ImageSource
from adapter4rec.data.images.soundness import require_sound
from adapter4rec.utils.errors import UserError

SIZE = 40  # images of more than a page
NAMES = [b"item%04d" % number for number in range(150)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("lmdb") / "whole.lmdb"
    with lmdb.open(
        str(path), map_size=1 << 24, subdir=False, lock=False, sync=False, max_dbs=1
    ) as environment:
        with environment.begin(write=True) as transaction:
            sources = environment.open_db(SOURCES_KEY, transaction)
            for name in NAMES:
                transaction.put(
                    name, ImageSource(f"{name.decode()}.jpg", 1, 2, "0f" * 32).to_bytes(), db=sources
                )
            transaction.put(b"\0adapter4rec", Description({"size": SIZE}, len(NAMES)).to_bytes())
            for name in NAMES:
                transaction.put(name, pack(name, bytes([name[-1]]) * (SIZE * SIZE * 3)))
        used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    return path.read_bytes()[:used]


def own_bytes(content: bytes) -> list[int]:
    """Places of the two meta pages, and of the headers and entries of branch and leaf pages."""
    page = 4096
    heads = [
        start
        for start in range(0, len(content), page)
        if content[start + 10 : start + 12] in (b"\1\0", b"\2\0")
    ]
    return [
        *range(150),
        *range(page, page + 150),
        *(place for start in heads for place in range(start, start + page)),
    ]


def read_in_child(path: Path) -> int:
    """The exit code of a process that reads all images and sources: 0 read, 2 refused, negative: a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            ImageDatabase(path).read(NAMES)
            ImageDatabase(path).faults()
            code = 0
        except UserError as error:
            code = 2 if str(path) in str(error) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_flipped_bits_never_end_the_process_silently(whole: bytes, tmp_path: Path):
    chance = Random(1)
    places = own_bytes(whole)
    found = []
    sound = tmp_path / "sound.lmdb"
    sound.write_bytes(whole)
    assert read_in_child(sound) == 0
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(1 + number % 3):
            damaged[chance.choice(places)] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{number}.lmdb"
        path.write_bytes(damaged)
        found.append(read_in_child(path))
        path.unlink()
    assert set(found) <= {0, 2}
    assert 2 in found


PAGE, HEADER = 4096, 16


def leaf_with(content: bytes, name: bytes) -> int:
    """Where the first leaf page with a name begins."""
    pages = range(0, len(content), PAGE)
    return next(at for at in pages if content[at + 10] == 2 and name in content[at : at + PAGE])


def other_count(change: int) -> Callable[[bytearray], None]:
    """Another number of entries, in both meta pages."""

    def damage(content: bytearray) -> None:
        for entries in (HEADER + 104, PAGE + HEADER + 104):
            (count,) = struct.unpack_from("<Q", content, entries)
            struct.pack_into("<Q", content, entries, max(0, count + change))  # 0: of an older state

    return damage


def other_order(content: bytearray) -> None:
    """Two entries of a leaf page change places."""
    at = leaf_with(content, NAMES[7]) + HEADER
    content[at : at + 2], content[at + 2 : at + 4] = content[at + 2 : at + 4], content[at : at + 2]


def other_length(content: bytearray) -> None:
    """A value ends beyond the file."""
    at = leaf_with(content, NAMES[7] + b".jpg")
    (node,) = struct.unpack_from("<H", content, at + HEADER)
    struct.pack_into("<I", content, at + node, len(content))


@pytest.mark.parametrize("damage", [other_count(1), other_count(-1), other_order, other_length])
def test_each_kind_of_damage_to_pages_is_named(whole: bytes, tmp_path: Path, damage):
    path = tmp_path / "a.lmdb"
    content = bytearray(whole)
    damage(content)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: damaged LMDB"):
        require_sound(path)


def test_a_whole_database_is_sound_and_a_crash_is_named(whole: bytes, tmp_path: Path, monkeypatch):
    path = tmp_path / "a.lmdb"
    path.write_bytes(whole)
    require_sound(path)
    monkeypatch.setattr("adapter4rec.data.images.soundness._read_all", lambda _: os.abort())
    with pytest.raises(UserError, match=rf"{path}: damaged LMDB: reading it ends with SIGABRT"):
        require_sound(path)
