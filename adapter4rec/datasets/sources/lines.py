"""What the readers share: finding the files of a download, and reading lines without quoting.

A download may be missing, unfinished, still packed, a web page, or another file under the right name. Each
of these is a UserError that names the file and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import SupportsInt

import polars as pl

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import files_under, require_regular
from adapter4rec.utils.plain_text import SNIFFED_BYTES, is_page, not_text, unicode_form

_PACKED = (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar")
_UNFINISHED = (".part", ".crdownload", ".partial", ".download", ".tmp")
_NO_SEPARATOR = "\x01"
"""A byte that no text contains: a line stays in one piece."""


def find_named(folder: Path, *names: str) -> list[Path]:
    """Files of these names below a folder, sorted. The folders that macOS adds to archives are skipped.

    Raises:
        UserError: no such folder, or a FIFO, device or socket has one of these names.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold the files of the download")
    below = files_under(folder, lambda name: name != "__MACOSX")
    found = sorted(path for path in below if path.name in names)
    for path in found:
        require_regular(path)
    return found


def missing(folder: Path, expected: str) -> UserError:
    """The error of a folder without the expected files; names archives and unfinished downloads in it."""
    files = [path for path in files_under(folder) if path.suffix.lower() in _PACKED + _UNFINISHED]
    archives = [path for path in files if path.suffix.lower() in _PACKED]
    packed = [path.name for path in archives if not _is_page(path)]
    pages = [path.name for path in archives if _is_page(path)]
    unfinished = [path.name for path in files if path.suffix.lower() in _UNFINISHED]
    hint = f"; unpack {', '.join(packed[:3])} first" if packed else ""
    hint += f"; {', '.join(pages[:3])} is no archive but a web page with an error" if pages else ""
    hint += f"; {', '.join(unfinished[:3])} is an unfinished download" if unfinished else ""
    return UserError(f"{folder}: expected {expected}, found none{hint}")


def _is_page(path: Path) -> bool:
    require_regular(path)
    with path.open("rb") as file:
        return is_page(file.read(SNIFFED_BYTES))


def only_one(folder: Path, expected: str, *names: str) -> Path:
    """The one file of these names below a folder.

    Raises:
        UserError: none, or several; ``expected`` is in the message.
    """
    found = find_named(folder, *names)
    if not found:
        raise missing(folder, expected)
    if len(found) > 1:
        shown = ", ".join(str(path.relative_to(folder)) for path in found)
        raise UserError(
            f"{folder}: holds several data sets ({shown}); set --raw to the folder of one of them"
        )
    return found[0]


def text_fault(start: bytes) -> str | None:
    """What keeps a reader from reading a file, by its first bytes; None if nothing is recognised."""
    if form := unicode_form(start):
        return f"encoded in {form[:6].upper()}; convert it to UTF-8"
    return not_text(start)


def check_text(path: Path, expected: str, *, line_end: bool = True) -> None:
    """Check the first and the last bytes of a text file.

    Args:
        path: the file.
        expected: what the file should be, for the message.
        line_end: whether the owner's file ends with a line end, so that its absence shows a cut-off file.

    Raises:
        UserError: the file is missing, empty, packed, binary, a web page, or cut off.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
            file.seek(-1 if head else 0, 2)
            last = file.read(1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {expected}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected {expected}") from None
    if not head:
        raise UserError(f"{path}: the file is empty; expected {expected}. Download it again")
    if fault := text_fault(head):
        raise UserError(f"{path}: the file is {fault}; expected {expected}")
    if b"\0" in head:
        raise UserError(f"{path}: the file is binary; expected {expected}")
    if line_end and last != b"\n":
        raise UserError(
            f"{path}: cut off: the last line has no line end; expected {expected}. "
            "Download it again, or add a line end if the file is complete"
        )


def scan_lines(path: Path) -> pl.LazyFrame:
    """Lines of a UTF-8 file. Columns ``row`` (UInt32, from 0) and ``line`` (null if blank)."""
    return pl.scan_csv(
        path,
        has_header=False,
        separator=_NO_SEPARATOR,
        quote_char=None,
        schema={"line": pl.String},
        row_index_name="row",
        glob=False,
    )


def scan_fields(path: Path, columns: Sequence[str], separator: str = "\t") -> pl.LazyFrame:
    """Fields of lines without quoting, as strings, with the column ``row``. Blank lines are skipped.

    A missing field is null, an empty one is the empty string. All lines are checked at once; memory is
    bounded.

    Raises:
        UserError: a line has another number of fields, or the file is not UTF-8.
    """
    names = [*columns, "_more"]
    fields = (
        scan_lines(path)
        .filter(pl.col("line").is_not_null())
        .with_columns(pl.col("line").str.splitn(separator, len(names)).struct.rename_fields(names))
        .unnest("line")
    )
    wrong = pl.col(columns[-1]).is_null() | pl.col("_more").is_not_null()
    shown = {"\t": "tabs", ",": "commas", "|": "bars"}.get(separator, f"{separator!r}")
    check_rows(
        path, fields, wrong, f"expected {len(columns)} fields separated by {shown}: {', '.join(columns)}"
    )
    return fields.drop("_more")


def check_rows(path: Path, rows: pl.LazyFrame, wrong: pl.Expr, expected: str) -> None:
    """Raise a UserError with the line number of the first wrong row. Needs the column ``row``."""
    counts = pl.col("row").filter(wrong)
    bad = collect(path, rows.select(first=counts.min(), wrong=counts.count(), lines=pl.len()), expected)
    first, number, lines = bad.row(0)
    if number:
        others = f" ({number:,} of {lines:,} lines are wrong)" if number > 1 else ""
        end = "; the file is cut off" if number == 1 and first == _last_row(path, rows) else ""
        raise UserError(f"{path}:{first + 1}: {expected}{others}{end}")


def _last_row(path: Path, rows: pl.LazyFrame) -> int:
    return int(collect(path, rows.select(pl.col("row").max())).item())


def collect(path: Path, rows: pl.LazyFrame, expected: str = "") -> pl.DataFrame:
    """The result of a streamed query over a file.

    Args:
        path: the file, for the message.
        rows: the query.
        expected: what the file should hold, for the message.

    Raises:
        UserError: the file cannot be read; with what polars says.
    """
    try:
        return rows.collect(engine="streaming")
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError, pl.exceptions.NoDataError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        if "utf-8" in reason.lower() or "utf8" in reason.lower():
            reason = "the text is not UTF-8"
        elif "not specified in schema" in reason:
            reason = "a line contains the control character U+0001; the file is damaged"
        raise UserError(f"{path}: {reason}" + (f"; {expected}" if expected else "")) from None


def count_note(number: SupportsInt, text: str) -> list[str]:
    """``["12 …"]``, or no line if there are none."""
    return [f"{int(number):,} {text}"] if int(number) else []
