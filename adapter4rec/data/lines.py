"""Reading large tab-separated files in blocks of whole lines.

Only a line feed ends a line. A carriage return before it and a byte order mark at the start of the file
are read as what they are meant to be: no part of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adapter4rec.utils.errors import UserError

_BLOCK_BYTES = 8 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def blocks_of_lines(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (number of the first line, lines without their ends) for some megabytes at a time.

    Raises:
        UserError: the file is missing, is a folder, cannot be read, or has a blank line.
    """
    try:
        with path.open("rb") as file:
            yield from _blocks(file, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; Dataset/README.md tells what belongs where") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _blocks(file: BinaryIO, path: Path) -> Iterator[tuple[int, list[bytes]]]:
    first_line = 1
    unfinished = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    while unfinished:
        block = file.read(_BLOCK_BYTES)
        whole, line_feed, rest = unfinished.rpartition(b"\n")
        if not block:  # the end of the file ends the last line too
            whole, rest = unfinished.removesuffix(b"\n"), b""
        elif not line_feed:  # a line longer than a block
            whole = None
        if whole is not None:
            lines = whole.split(b"\n")
            yield first_line, _clean(lines, first_line, path)
            first_line += len(lines)
        unfinished = rest + block


def _clean(lines: list[bytes], first_line: int, path: Path) -> list[bytes]:
    lines = [line.removesuffix(b"\r") for line in lines]
    if b"" in lines:
        raise UserError(f"{path}:{first_line + lines.index(b'')}: the line is blank; remove it")
    return lines
