"""Reading large text files in blocks of complete lines.

Lines end with LF or CRLF; a UTF-8 byte order mark at the start of the file is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adapter4rec.utils.errors import UserError

_BLOCK_BYTES = 8 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_line_blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield ``(number of the first line, lines without line ends)`` in blocks of some megabytes.

    Raises:
        UserError: the file is missing, is a folder, cannot be read, or contains a blank line.
    """
    try:
        with path.open("rb") as file:
            yield from _blocks(file, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; see Dataset/README.md") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _blocks(file: BinaryIO, path: Path) -> Iterator[tuple[int, list[bytes]]]:
    first_line = 1
    unfinished = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    while unfinished:
        block = file.read(_BLOCK_BYTES)
        whole, line_feed, rest = unfinished.rpartition(b"\n")
        if not block:  # end of file; the last line may have no line feed
            whole, rest = unfinished.removesuffix(b"\n"), b""
        elif not line_feed:  # the line is longer than a block
            whole = None
        if whole is not None:
            lines = whole.split(b"\n")
            yield first_line, _clean(lines, first_line, path)
            first_line += len(lines)
        unfinished = rest + block


def _clean(lines: list[bytes], first_line: int, path: Path) -> list[bytes]:
    lines = [line.removesuffix(b"\r") for line in lines]
    if b"" in lines:
        raise UserError(f"{path}:{first_line + lines.index(b'')}: blank line")
    return lines
