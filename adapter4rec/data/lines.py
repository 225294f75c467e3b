"""Reading large text files in blocks of lines, as UTF-8.

Lines end with LF or CRLF; a byte order mark at the start of the file is skipped.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import require_regular
from adapter4rec.utils.plain_text import SNIFFED_BYTES, encoding_fault, file_fault, has_ascii_lines, is_utf8

_BLOCK = 32 << 20
"""Bytes of a block, and one line: what is made of its words takes about ten times as much memory."""


def read_line_blocks(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, list[bytes]]]:
    """Yield ``(number of the first line, lines without line ends)`` in blocks of 32 MiB.

    Args:
        path: the file.
        encoding: its encoding. Lines of another encoding than UTF-8 are converted to UTF-8; those of UTF-8
            are not checked here.

    Raises:
        UserError: the file is missing, is a folder, cannot be read, is compressed or in another encoding, or
            contains a blank line.
    """
    if fault := encoding_fault(encoding):
        raise UserError(f"--encoding: {fault}")
    try:
        require_regular(path)
        with path.open("rb") as file:
            if fault := file_fault(file.peek(SNIFFED_BYTES)[:SNIFFED_BYTES], encoding):
                raise UserError(f"{path}: {fault}")
            source = file if is_utf8(encoding) else _converted(path, file, encoding)
            number = 1
            for block in _blocks(source):
                if number == 1:
                    block[0] = block[0].removeprefix(BOM_UTF8)
                lines = [line.removesuffix(b"\n").removesuffix(b"\r") for line in block]
                if b"" in lines:
                    raise UserError(f"{path}:{number + lines.index(b'')}: blank line")
                yield number, lines
                number += len(lines)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; see Dataset/README.md") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _converted(path: Path, lines: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The lines of a file in another encoding, in UTF-8.

    Raises:
        UserError: a line is not valid in this encoding.
    """
    number = 0
    try:
        if has_ascii_lines(encoding):
            for line in lines:
                text = line.decode(encoding)
                number += 1
                yield text.encode("utf-8")
        else:  # a line feed may be part of a character, so that the file is decoded as a whole
            with path.open(encoding=encoding, newline="\n") as file:
                for text in file:
                    number += 1
                    yield text.encode("utf-8")
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else error
        raise UserError(
            f"{path}:{number + 1}: not {encoding} ({reason}); set the encoding of the file with --encoding"
        ) from None
