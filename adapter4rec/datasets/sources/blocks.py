"""Reading the files of public data sets in blocks: gzip or not, damage with file and line, compact columns.

A file of 30 million clicks is parsed once, block by block. Its users and items are kept as numbers into one
table of names (categories of polars), which takes about 24 bytes per click.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import polars as pl

from adapter4rec.datasets.fetching import FAILURES
from adapter4rec.datasets.sources.lines import count_note, missing, text_fault
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import files_under, require_regular
from adapter4rec.utils.plain_text import GZIP, SNIFFED_BYTES

BLOCK = 1 << 25
"""Bytes of one block, before it is cut after its last whole line."""
_SKIPPED = re.compile(r"^[.]|^__MACOSX$|images?$|covers?$", re.IGNORECASE)
"""Folders that hold no tables: hidden ones, of macOS archives, and those of pictures."""


def files_below(folder: Path) -> list[Path]:
    """All files of a raw download, sorted, without those of picture folders.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = files_under(folder, lambda name: not _SKIPPED.search(name))
    return [path for path in found if not path.name.startswith(".") and path.name != FAILURES]


def one_file(files: list[Path], folder: Path, expected: str) -> Path:
    """The one file of a kind.

    Raises:
        UserError: none, or several, with ``expected`` in the message.
    """
    if not files:
        raise missing(folder, expected)
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{folder}: several files {expected}: {names}; keep one, or name a folder with one")
    return files[0]


def opened(path: Path, expected: str) -> BinaryIO:
    """Open a file, gzip or not, by its first bytes.

    Raises:
        UserError: empty, or visibly something else than text.
    """
    require_regular(path)
    with path.open("rb") as file:
        start = file.read(SNIFFED_BYTES)
    if not start:
        raise UserError(f"{path}: empty file; expected {expected}")
    if start.startswith(GZIP):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if fault := text_fault(start):
        raise UserError(f"{path}: the file is {fault}; expected {expected}")
    return path.open("rb")


def byte_blocks(path: Path, expected: str, size: int = BLOCK) -> Iterator[bytes]:
    """The content of a file in blocks of whole lines, without a byte order mark.

    Raises:
        UserError: the file is empty, cut off or damaged as gzip, or something else than text.
    """
    done, rest = 0, b""
    with opened(path, expected) as file:
        while True:
            try:
                read = file.read(size)
            except EOFError:
                raise UserError(
                    f"{path}: cut off after {done + len(rest):,} bytes; download it again"
                ) from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise UserError(f"{path}: damaged gzip file ({error}); download it again") from None
            if not done:
                read = read.removeprefix(b"\xef\xbb\xbf")
            end = read.rfind(b"\n") + 1
            block = rest + read[:end] if end else b""
            rest = read[end:] if end else rest + read
            if block:
                done += len(block)
                yield block
            if not read:
                break
    if rest:
        yield rest


def first_line(path: Path, expected: str) -> str:
    """The first line of a file that is not empty, for recognising its content."""
    for block in byte_blocks(path, expected, 1 << 16):
        for line in block.splitlines():
            if line.strip():
                return line.decode("utf-8", "replace").strip()
    raise UserError(f"{path}: empty file; expected {expected}")


def csv_blocks(
    path: Path,
    names: list[str],
    expected: str,
    *,
    separator: str = ",",
    header: bool = False,
    quoted: bool = True,
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Blocks of a CSV file as String columns, each with the number of its first line.

    Raises:
        UserError: a line has more fields than ``names``, is no UTF-8, or has an open quotation mark.
    """
    line = 1
    schema = dict.fromkeys(names, pl.String)
    for read in byte_blocks(path, expected):
        block = read
        if read.endswith((b"\n\n", b"\n\r\n")):  # empty lines at the end are no clicks
            block = read.rstrip(b"\r\n") + b"\n"
        skip = 1 if header and line == 1 else 0
        if block.strip() and (skip == 0 or block.count(b"\n") > skip):
            yield line + skip, _parsed(path, line, block, schema, separator, skip, quoted, expected)
        line += read.count(b"\n")


def _parsed(
    path: Path, line: int, block: bytes, schema: Mapping[str, pl.DataType | type[pl.DataType]],
    separator: str, skip: int, quoted: bool, expected: str,
) -> pl.DataFrame:  # fmt: skip
    try:
        return pl.read_csv(
            io.BytesIO(block), has_header=False, schema=schema, separator=separator, skip_lines=skip,
            quote_char='"' if quoted else None, eol_char="\n",
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        lines = block.decode("utf-8", "surrogateescape").splitlines(keepends=True)[skip:]
        number = line + skip + _damaged_row(lines, len(schema), separator, quoted)
        raise UserError(f"{path}, line {number}: cannot read; expected {expected}") from None


def _damaged_row(lines: list[str], columns: int, separator: str, quoted: bool) -> int:
    """Lines before the row that has another number of fields, is no UTF-8 or has an open quotation mark."""
    if quoted:
        rows = csv.reader(lines, delimiter=separator, strict=True)
    else:
        rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
    before = 0
    with suppress(csv.Error):
        for row in rows:
            foreign = any("\udc80" <= sign <= "\udcff" for field in row for sign in field)
            if foreign or len(row) > columns or (len(row) < columns and not before):
                break
            before = rows.line_num
    return before


@dataclass
class ClickBlocks:
    """Clicks collected block by block.

    Args:
        path: their file, for messages.
        expected: what a line holds, for messages.
    """

    path: Path
    expected: str
    parts: list[pl.DataFrame] = field(default_factory=list)

    def add(self, frame: pl.DataFrame, line: int) -> None:
        """Add a block with String columns ``user`` and ``item`` and numbers in ``time`` and ``rating``.

        Args:
            frame: a block; ``time`` and ``rating`` may be there, as numbers or as text, and ``row``, the
                line of a click within the block, where a line has several.
            line: number of its first line.

        Raises:
            UserError: a field is missing or not a number.
        """
        columns = [
            pl.when(pl.col(name) != "").then(pl.col(name)).cast(pl.Categorical) for name in ("user", "item")
        ]
        if "time" in frame.columns:  # by way of floats: 8.8e8 is a time
            columns.append(pl.col("time").cast(pl.Float64, strict=False).cast(pl.Int64, strict=False))
        if "rating" in frame.columns:
            columns.append(pl.col("rating").cast(pl.Float32, strict=False).fill_nan(None))
        compact = frame.select(columns)
        for name in compact.columns:
            if compact[name].null_count():
                rows = frame["row"] if "row" in frame.columns else range(len(frame))
                row = rows[int(compact[name].is_null().arg_max() or 0)]
                number, cut = line + row, " or cut off" if row == rows[-1] else ""
                raise UserError(
                    f"{self.path}, line {number}: {name} is missing{cut}; expected {self.expected}"
                )
        self.parts.append(compact)

    def frame(self) -> pl.DataFrame:
        """All clicks; ``user`` and ``item`` are categories.

        Raises:
            UserError: there is none.
        """
        if not self.parts:
            raise UserError(f"{self.path}: no clicks; expected {self.expected}")
        return pl.concat(self.parts, rechunk=False)


def lazy(frame: pl.DataFrame) -> pl.LazyFrame:
    """Clicks as :class:`RawData` wants them: names as String, ratings as Float64."""
    columns = [pl.col("user", "item").cast(pl.String)]
    columns += [pl.col(name) for name in ("time",) if name in frame.columns]
    columns += [pl.col(name).cast(pl.Float64) for name in ("rating",) if name in frame.columns]
    return frame.lazy().select(columns)


def names_of(frame: pl.DataFrame, column: str) -> pl.Series:
    """The distinct names in a column of clicks, in the order of their first click."""
    return frame[column].unique(maintain_order=True).cast(pl.String)


def repeats(frame: pl.DataFrame, parts: int = 16) -> int:
    """How many clicks repeat another click: same user, item and time, if there is a time.

    Counted for a part of the users after another, which bounds the memory.
    """
    keys = [
        pl.col("user", "item").to_physical(),
        *(pl.col("time") for name in frame.columns if name == "time"),
    ]
    user = pl.col("user").to_physical()
    count = 0
    for part in range(parts):
        hashes = frame.lazy().filter(user % parts == part).select(pl.struct(keys).hash().alias("hash"))
        count += int(hashes.select(pl.len() - pl.col("hash").n_unique()).collect().item())
    return count


def with_images(items: pl.DataFrame, folder: Path, notes: list[str]) -> pl.DataFrame:
    """Add the column ``image``: the picture file with the item's name below a folder, else null.

    Without any picture the items stay as they are. Empty files count as missing. Of several pictures of an
    item, the largest file is taken.
    """
    found: dict[str, list[Path]] = {}
    for path in files_under(folder):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") and path.stat().st_size > 0:
            found.setdefault(path.stem, []).append(path)
    if not found:
        notes.append("no image files: items without images")
        return items
    pictures = [found.get(name, []) for name in items["item"]]
    paths = [str(max(some, key=lambda path: path.stat().st_size)) if some else None for some in pictures]
    notes.append(f"{paths.count(None):,} of {len(items):,} items have no image file, or an empty one")
    several = sum(len(some) > 1 for some in pictures)
    notes += count_note(several, "items have several image files: the largest one was taken")
    return items.with_columns(image=pl.Series(paths, dtype=pl.String))


def note_repeats(frame: pl.DataFrame, notes: list[str]) -> None:
    """Say how many clicks repeat another one; they are kept."""
    if count := repeats(frame):
        same = "user, item and time" if "time" in frame.columns else "user and item"
        notes.append(f"{count:,} clicks repeat one of the same {same}: kept")


def in_seconds(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Clicks with times in seconds. Times beyond 10**11 are milliseconds, whose order is kept."""
    highest = frame["time"].max() if "time" in frame.columns else None
    if not isinstance(highest, int) or highest < 10**11:
        return frame
    notes.append("timestamps are milliseconds: divided by 1000 after ordering")
    return frame.sort("time", maintain_order=True).with_columns(pl.col("time") // 1000)
