"""Reading large text files in blocks of lines.

Lines end with LF or CRLF; a UTF-8 byte order mark at the start of the file is skipped.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from adapter4rec.utils.errors import UserError

_LINES_AT_ONCE = 50_000


def read_line_blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield ``(number of the first line, lines without line ends)`` in blocks of many lines.

    Raises:
        UserError: the file is missing, is a folder, cannot be read, or contains a blank line.
    """
    try:
        with path.open("rb") as file:
            number = 1
            while block := list(islice(file, _LINES_AT_ONCE)):
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
