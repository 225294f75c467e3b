"""Amazon Reviews of 2014, 2018 and 2023, any category; clothing is the image target domain of the paper.

Formats:
- 2014, https://jmcauley.ucsd.edu/data/amazon/: ``reviews_X.json.gz``, ``reviews_X_5.json.gz`` (the 5-core),
  ``ratings_X.csv`` (user, item, rating, timestamp), ``meta_X.json.gz``, whose lines are Python literals.
- 2018, https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/: ``X.json.gz``, ``X_5.json.gz``, ``X.csv``
  (item, user, rating, timestamp: not the order of 2014), ``meta_X.json.gz`` (JSON lines).
- 2023, https://amazon-reviews-2023.github.io/: ``X.jsonl.gz``, ``meta_X.jsonl.gz``; ``X.csv.gz`` and the
  splits ``X.train.csv.gz``, ``X.valid.csv.gz``, ``X.test.csv.gz`` with a header, of the 0-core and the
  5-core. An item is its ``parent_asin``; times are milliseconds.
Files are recognised by their content, not by their names. Metadata: ``amazon_metadata.py``.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.amazon_metadata import parsed_line, read_metadata
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.blocks import (
    ClickBlocks,
    byte_blocks,
    csv_blocks,
    files_below,
    first_line,
    in_seconds,
    lazy,
    names_of,
    note_repeats,
)
from adapter4rec.utils.errors import UserError

_EXPECTED = "reviews, ratings or metadata of Amazon Reviews 2014, 2018 or 2023"
_FIELDS_2023 = ["user_id", "parent_asin", "rating", "timestamp"]
_ASIN = r"^(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$"
_KEYS = {
    "2014": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "2018": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "2023": ("user_id", "parent_asin", "rating", "timestamp"),
}
_SPLIT = re.compile(r"\.(train|valid|test)\.csv(\.gz)?$")


@dataclass(frozen=True)
class _File:
    """A file and what its first line shows it to be.

    Attributes:
        kind: "reviews", "ratings" or "metadata".
        year: "2014", "2018" or "2023"; of ratings without a header "2014 or 2018".
        literal: lines are Python literals, not JSON.
        columns: of ratings with a header.
    """

    path: Path
    kind: str
    year: str
    literal: bool = False
    columns: tuple[str, ...] = ()


def read(folder: Path) -> RawData:
    """Read the folder of one category: one file of clicks, and its metadata if there are any.

    Raises:
        UserError: a file is missing, cut off, swapped or damaged, or there are several categories.
    """
    notes: list[str] = []
    known = [_recognised(path) for path in files_below(folder) if _may_be_data(path)]
    sources = _clicks_of(known, folder, notes)
    frame = pl.concat([_read_clicks(source, notes) for source in sources])
    note_repeats(frame, notes)
    frame = in_seconds(frame, notes)
    items = names_of(frame, "item").to_frame()
    metadata = [file for file in known if file.kind == "metadata"]
    if not metadata:
        notes.append("no meta_X file: items without text and images")
    elif len(metadata) > 1:
        names = ", ".join(file.path.name for file in metadata)
        raise UserError(f"{folder}: several files of metadata: {names}; keep the one of the category")
    else:
        items = read_metadata(metadata[0].path, metadata[0].year, metadata[0].literal, items, notes)
    return RawData(lazy(frame), items.lazy(), notes)


def _may_be_data(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".json", ".jsonl", ".csv"))


def _recognised(path: Path) -> _File:
    line = first_line(path, _EXPECTED)
    if line.startswith("{"):
        return _recognised_record(path, line)
    fields = [field.strip('"') for field in line.split(",")]
    if fields[:4] == _FIELDS_2023:
        return _File(path, "ratings", "2023", columns=tuple(fields))
    if len(fields) == 4 and any(re.match(_ASIN, field) for field in fields[:2]):
        return _File(path, "ratings", "2014 or 2018")
    raise UserError(f"{path}: its first line is {line[:60]!r}; expected {_EXPECTED}")


def _recognised_record(path: Path, line: str) -> _File:
    literal = False
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        literal = True
        record = parsed_line(path, 1, line.encode(), literal=True)
    if "reviewerID" in record:
        return _File(path, "reviews", "2014" if "helpful" in record or literal else "2018", literal)
    if "user_id" in record and "parent_asin" in record:
        return _File(path, "reviews", "2023", literal)
    if "parent_asin" in record:
        return _File(path, "metadata", "2023", literal)
    if "asin" in record:
        old = literal or "imUrl" in record or "salesRank" in record
        return _File(path, "metadata", "2014" if old else "2018", literal)
    raise UserError(f"{path}: its first line has the keys {', '.join(record)[:80]}; expected {_EXPECTED}")


def _clicks_of(known: list[_File], folder: Path, notes: list[str]) -> list[_File]:
    """The file of clicks, or the three files of a split."""
    clicks = [file for file in known if file.kind != "metadata"]
    if not clicks:
        raise UserError(f"{folder}: no file of reviews or ratings; expected {SOURCE.files}")
    parts = {match[1]: file for file in clicks if (match := _SPLIT.search(file.path.name))}
    if parts and len(parts) == len(clicks):
        if lacking := {"train", "valid", "test"} - set(parts):
            raise UserError(
                f"{folder}: of a split, {', '.join(sorted(lacking))} is missing beside {clicks[0].path.name}"
            )
        notes.append("the three files of a split (train, valid, test) are put together")
        return [parts[name] for name in ("train", "valid", "test")]
    if len(clicks) > 1:
        names = ", ".join(file.path.name for file in clicks)
        raise UserError(f"{folder}: several files of clicks: {names}; keep one, or name a folder with one")
    return clicks


def _read_clicks(file: _File, notes: list[str]) -> pl.DataFrame:
    notes.append(f"{file.path.name}: {file.kind} of {file.year}, recognised by their content")
    if file.kind == "ratings":
        return _read_ratings(file, notes)
    expected = f"one review a line with {', '.join(_KEYS[file.year])}"
    clicks, line = ClickBlocks(file.path, expected), 1
    for block in byte_blocks(file.path, expected):
        clicks.add(_review_block(file, block, line), line)
        line += block.count(b"\n")
    return clicks.frame()


def _review_block(file: _File, block: bytes, line: int) -> pl.DataFrame:
    user, item, rating, time = _KEYS[file.year]
    schema = {user: pl.String, item: pl.String, rating: pl.Float64, time: pl.Int64}
    if file.literal:
        records = [{key: record.get(key) for key in schema} for record in _records(file, block, line)]
        frame = pl.DataFrame(records, schema=schema, strict=False)
    else:
        try:
            frame = pl.read_ndjson(io.BytesIO(block), schema=schema)
        except pl.exceptions.PolarsError:
            for _ in _records(file, block, line):  # names the damaged line
                pass
            raise UserError(f"{file.path}, from line {line}: {rating} or {time} is not a number") from None
    return frame.rename({user: "user", item: "item", rating: "rating", time: "time"})


def _records(file: _File, block: bytes, line: int) -> Iterator[dict[str, object]]:
    for number, text in enumerate(block.split(b"\n"), line):
        if text.strip():
            yield parsed_line(file.path, number, text, literal=file.literal)


def _read_ratings(file: _File, notes: list[str]) -> pl.DataFrame:
    header = bool(file.columns)
    names = list(file.columns) if header else ["first", "second", "rating", "time"]
    expected = f"the fields {', '.join(names)}" if header else "lines of user and item, rating, timestamp"
    clicks = ClickBlocks(file.path, expected)
    roles = dict(zip(_FIELDS_2023, ("user", "item", "rating", "time"), strict=True))
    for line, block in csv_blocks(file.path, names, expected, header=header):
        if not header and not clicks.parts:
            roles = _order_of_ratings(file.path, block, notes)
        clicks.add(block.rename(roles).select("user", "item", "rating", "time"), line)
    return clicks.frame()


def _order_of_ratings(path: Path, block: pl.DataFrame, notes: list[str]) -> dict[str, str]:
    """The item is the column that holds ASINs: the second in 2014, the first in 2018."""
    shares = [float(block[name].str.contains(_ASIN).mean() or 0) for name in ("first", "second")]  # type: ignore[arg-type]  # fmt: skip
    swapped = shares[0] > shares[1]
    year = "2018 (item first)" if swapped else "2014 (user first)"
    notes.append(f"the columns of {path.name} are in the order of {year}, judged by their content")
    return {"first": "item", "second": "user"} if swapped else {"first": "user", "second": "item"}


SOURCE = Source(
    about="Amazon Reviews 2014, 2018 and 2023: any category, with titles, descriptions and image addresses",
    published="https://cseweb.ucsd.edu/~jmcauley/datasets.html, https://amazon-reviews-2023.github.io (2023)",
    licence="none given; published for research",
    files="one of reviews_X[_5].json, X[_5].json, X.jsonl, ratings_X.csv or X.csv, and meta_X.json or "
    "meta_X.jsonl, each with .gz or without",
    read=read,
)
