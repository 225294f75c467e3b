"""MicroLens: micro-videos with titles and cover images (Ni et al., 2023), MicroLens-50k and -100k.

Format: https://github.com/westlake-repl/MicroLens and the ``readme.txt`` beside the download.
``NAME_pairs.csv`` (user, item, timestamp in milliseconds) or ``NAME_pairs.tsv`` (a user, a tab, the items in
time order, separated by spaces); ``NAME_titles.csv`` or ``NAME_title_en.csv`` (item, title; with a header in
some releases only); covers as ``NAME_covers/ITEM.jpg``.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl

from adapter4rec.datasets.raw import RawData
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
    one_file,
    with_images,
)
from adapter4rec.utils.errors import UserError

_PAIRS = "lines user,item,timestamp"
_SEQUENCES = "lines user, tab, items in time order separated by spaces"
_TITLES = "lines item,title"


def read(folder: Path) -> RawData:
    """Read the folder of MicroLens-50k or -100k.

    Raises:
        UserError: a file is missing, cut off, swapped or damaged.
    """
    files = files_below(folder)
    notes: list[str] = []
    pairs = [path for path in files if "_pairs." in path.name and ".csv" in path.name]
    sequences = [path for path in files if "_pairs." in path.name and ".tsv" in path.name]
    if pairs:
        frame = _pairs(one_file(pairs, folder, "NAME_pairs.csv"))
        if sequences:
            notes.append(f"{pairs[0].name} is read, which has timestamps; {sequences[0].name} is not")
    else:
        frame = sequence_clicks(one_file(sequences, folder, "NAME_pairs.csv or NAME_pairs.tsv"), _SEQUENCES)
        notes.append("no timestamps: clicks keep the order of NAME_pairs.tsv")
    note_repeats(frame, notes)
    frame = in_seconds(frame, notes)
    items = names_of(frame, "item").to_frame()
    items = _with_titles(items, _title_file(files, folder, notes), notes)
    items = with_images(items, folder, notes)
    return RawData(lazy(frame), items.lazy(), notes)


def _pairs(path: Path) -> pl.DataFrame:
    header = first_line(path, _PAIRS).split(",")
    if len(header) != 3 or "\t" in header[0]:
        raise UserError(f"{path}: its first line is {','.join(header)[:60]!r}; expected {_PAIRS}")
    clicks = ClickBlocks(path, _PAIRS)
    named = not header[2].strip().isdigit()
    for line, block in csv_blocks(path, ["user", "item", "time"], _PAIRS, header=named):
        clicks.add(block, line)
    return clicks.frame()


def sequence_clicks(path: Path, expected: str) -> pl.DataFrame:
    """Clicks of a file with a line per user: name, tab, items in time order, separated by spaces."""
    clicks = ClickBlocks(path, expected)
    for line, block in csv_blocks(path, ["user", "item"], expected, separator="\t", quoted=False):
        split = block.with_columns(pl.col("item").str.extract_all(r"\S+")).with_row_index("row")
        known = pl.when(pl.col("item").list.len() > 0).then("item")  # of an empty list, no row would be left
        clicks.add(split.with_columns(known).explode("item"), line)
    return clicks.frame()


def _title_file(files: list[Path], folder: Path, notes: list[str]) -> Path | None:
    """The titles; the English ones if there are several."""
    found = [path for path in files if "_title" in path.name and ".csv" in path.name]
    if len(found) > 1:
        english = [path for path in found if "_en" in path.name]
        chosen = one_file(english or found, folder, "of titles")
        notes.append(
            f"titles are those of {chosen.name}; {len(found) - 1} other files of titles are not read"
        )
        return chosen
    if not found:
        notes.append("no NAME_titles.csv or NAME_title_en.csv: items without text")
    return found[0] if found else None


def _with_titles(items: pl.DataFrame, path: Path | None, notes: list[str]) -> pl.DataFrame:
    if path is None:
        return items
    titles, joined = _titles(path)
    if joined:
        notes.append(f"{joined:,} titles held commas without quotation marks: put together again")
    merged = items.join(titles, on="item", how="left", maintain_order="left")
    lacking = merged["title"].null_count()
    if lacking == len(items):
        raise UserError(f"{path}: holds no item of the clicks; expected the titles of the same release")
    notes.append(f"{lacking:,} of {len(items):,} items have no title")
    return merged


def _titles(path: Path) -> tuple[pl.DataFrame, int]:
    try:
        text = b"".join(byte_blocks(path, _TITLES)).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; expected {_TITLES}") from None
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UserError(f"{path}: {error}; expected {_TITLES}") from None
    names, titles, joined = [], [], 0
    for number, fields in enumerate(rows, 1):
        if not fields or (number == 1 and fields[0].strip().lower() in ("item", "itemid", "videoid")):
            continue
        if len(fields) < 2 or not fields[0].strip():
            raise UserError(
                f"{path}, row {number}: {fields[0][:40]!r} is cut off or has no title; expected {_TITLES}"
            )
        joined += len(fields) > 2
        names.append(fields[0].strip())
        titles.append(",".join(fields[1:]).strip() or None)
    table = pl.DataFrame({"item": names, "title": titles}, schema={"item": pl.String, "title": pl.String})
    return table.unique("item", keep="first", maintain_order=True), joined


SOURCE = Source(
    about="MicroLens-50k and -100k: micro-videos with titles and covers",
    published="https://github.com/westlake-repl/MicroLens",
    licence="research use; altered copies may not be redistributed",
    files="NAME_pairs.csv or NAME_pairs.tsv, NAME_titles.csv or NAME_title_en.csv, NAME_covers/ITEM.jpg",
    read=read,
)
