"""Table files as lazy frames: CSV, Parquet and JSON lines, recognised by their content."""

from __future__ import annotations

import codecs
import glob
import gzip
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import polars as pl

from adapter4rec.datasets.options import FileSettings
from adapter4rec.utils.errors import UserError, reason_of
from adapter4rec.utils.files import require_regular
from adapter4rec.utils.plain_text import GZIP, PARQUET, SNIFFED_BYTES, encoding_fault, not_text, unicode_form

_SEPARATORS = ",;\t|"
_BLOCK = 1 << 22


@contextmanager
def polars_errors(what: str) -> Iterator[None]:
    """Turn errors of polars into user errors that begin with ``what``, such as the names of files."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        message = str(error).strip().splitlines()[0]
        hint = ""
        if "utf-8" in message.lower() or "utf8" in message.lower():
            hint = "; set its encoding, for example --encoding latin-1"
        elif "syntax" in message.lower():
            hint = "; a line is not a JSON object, or the file is cut off"
        elif "malformed" in message or 'could not parse `"' in message:
            hint = "; where a quotation mark is part of a text, set --quoting false"
        elif "fields" in message or "columns" in message:
            hint = "; a row has more columns than the header: is --separator or --quoting wrong?"
        raise UserError(f"{what}: cannot be read: {message}{hint}") from None
    except pl.exceptions.PanicException as error:  # no Exception; damaged Parquet files may cause it
        raise UserError(f"{what}: damaged, or cannot be read by polars ({reason_of(error)})") from None


def scan_files(
    paths: Sequence[Path], settings: FileSettings, scratch: Path, notes: list[str]
) -> pl.LazyFrame:
    """All rows of some files, in order. Columns of CSV files are String.

    Args:
        paths: the files; all have the same columns.
        settings: separator, quoting and encoding.
        scratch: folder for unpacked copies, as large as the content of compressed files.
        notes: one line is added for each file that was unpacked or converted.

    Raises:
        UserError: missing, empty, cut off or in another format.
    """
    frames = [_scan(path, settings, scratch, notes) for path in paths]
    columns = _columns_of(frames[0], paths[0])
    for path, frame in zip(paths[1:], frames[1:], strict=True):
        if (found := _columns_of(frame, path)) != columns:
            raise UserError(
                f"{path}: has the columns {', '.join(found)}, but {paths[0]} has {', '.join(columns)}"
            )
    return pl.concat(frames, how="vertical_relaxed")


def _columns_of(frame: pl.LazyFrame, path: Path) -> list[str]:
    with polars_errors(str(path)):
        return frame.collect_schema().names()


def _scan(path: Path, settings: FileSettings, scratch: Path, notes: list[str]) -> pl.LazyFrame:
    start = _first_bytes(path)
    if start.startswith(PARQUET + b"\x15"):
        _require_whole_parquet(path)
        return pl.scan_parquet(path, glob=False)
    if not start.startswith(GZIP) and (what := not_text(start)):
        raise UserError(f"{path}: {what}")
    text = _as_utf8(path, start, settings.encoding, scratch, notes)
    head = text.open("rb").read(_BLOCK).removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"["):
        raise UserError(f"{path}: a JSON array; expected JSON lines, one object per line")
    if head.startswith(b"{"):
        return pl.scan_ndjson(glob.escape(str(text)), infer_schema_length=None)
    if b"\0" in head:
        raise UserError(f"{path}: not a text file; expected CSV, Parquet or JSON lines")
    return pl.scan_csv(
        text,
        separator=_separator(settings, head, path),
        quote_char='"' if settings.quoting else None,
        infer_schema=False,
        encoding="utf8",
        glob=False,
        low_memory=True,
    )


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a file")
    try:
        require_regular(path)
        with path.open("rb") as file:
            start = file.read(SNIFFED_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    if not start:
        raise UserError(f"{path}: empty file")
    return start


def _require_whole_parquet(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(-4, 2)
        if file.read(4) != PARQUET:
            raise UserError(f"{path}: cut off; a Parquet file ends with its description, which is missing")


def _as_utf8(path: Path, start: bytes, encoding: str, scratch: Path, notes: list[str]) -> Path:
    """The file itself, or a copy in ``scratch`` that is unpacked and in UTF-8."""
    packed = start.startswith(GZIP)
    if packed:
        with _unpacked(path), gzip.open(path) as file:
            start = file.read(SNIFFED_BYTES)
    marked = start.startswith(codecs.BOM_UTF8 + b"{")
    utf16 = unicode_form(start) == "utf-16"
    if fault := encoding_fault(encoding):
        raise UserError(f"--encoding: {fault}")
    found = "utf-16" if utf16 else codecs.lookup(encoding).name
    if found == "utf-8":
        if not packed and not marked:
            return path
        found = "utf-8-sig" if marked else found
    copy = scratch / f"{len(list(scratch.iterdir()))}.txt"
    with _unpacked(path), _opened(path, packed) as source, copy.open("wb") as target:
        if found == "utf-8":
            shutil.copyfileobj(source, target, _BLOCK)
        else:
            try:
                for text in codecs.iterdecode(iter(lambda: source.read(_BLOCK), b""), found):
                    target.write(text.encode())
            except UnicodeError as error:
                raise UserError(f"{path}: not {found} ({error}); set another --encoding") from None
    if utf16:
        notes.append(f"{path.name}: recognised as UTF-16")
    return copy


def _opened(path: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


@contextmanager
def _unpacked(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}: cut off or damaged gzip file ({error}); download or copy it again"
        ) from None


def _separator(settings: FileSettings, head: bytes, path: Path) -> str:
    if settings.separator is not None:
        found = {"tab": "\t", "\\t": "\t"}.get(settings.separator, settings.separator)
        if len(found.encode()) != 1:
            raise UserError(f"--separator {settings.separator}: expected one character, or tab")
        return found
    line = head.split(b"\n", 1)[0].decode("utf-8", "replace")
    outside = "".join(line.split('"')[::2]) if settings.quoting else line
    counts = {separator: outside.count(separator) for separator in _SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    if [*counts.values()].count(counts[best]) > 1 and counts[best]:
        raise UserError(f"{path}: the separator of the columns is not clear; set --separator")
    return best
