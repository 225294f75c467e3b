"""NineRec: two source and nine target domains with text and covers (Zhang et al., TPAMI 2024).

Format: https://github.com/westlake-repl/NineRec, its README and its script for sequences. Per domain, without
headers: ``X_pair.csv`` (user, item, timestamp by the README; item, user, timestamp by the script for the
source domains; no timestamp in QB and TN), ``X_behaviour.tsv`` (a user, a tab, items in time order),
``X_item.csv`` (item, text in Chinese, text in English) and ``X_cover/ITEM.jpg``. What a column holds is
decided by its content.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.blocks import (
    ClickBlocks,
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
from adapter4rec.datasets.sources.microlens import sequence_clicks
from adapter4rec.utils.errors import UserError

_PAIRS = "lines of user, item and, but for QB and TN, timestamp"
_SEQUENCES = "lines user, tab, items in time order separated by spaces"
_ITEMS = "lines item, text in Chinese, text in English"
_CHINESE = re.compile(r"[\u3400-\u9fff]")


def read(folder: Path) -> RawData:
    """Read the folder of one domain.

    Raises:
        UserError: a file is missing, cut off, swapped or damaged, or there are several domains.
    """
    files = files_below(folder)
    notes: list[str] = []
    items = _items(_find(files, folder, "_item.csv"), notes)
    frame = _clicks(files, folder, set(items["item"]), notes)
    note_repeats(frame, notes)
    frame = in_seconds(frame, notes)
    unknown = names_of(frame, "item").to_frame().join(items, on="item", how="anti")
    if len(unknown):
        notes.append(f"{len(unknown):,} items of the clicks are not in X_item.csv: items without text")
        items = pl.concat([items, unknown], how="diagonal")
    items = with_images(items, folder, notes)
    return RawData(lazy(frame), items.lazy(), notes)


def _find(files: list[Path], folder: Path, ending: str) -> Path:
    found = [path for path in files if path.name.removesuffix(".gz").endswith(ending)]
    return one_file(found, folder, f"X{ending} of one domain")


def _clicks(files: list[Path], folder: Path, items: set[str], notes: list[str]) -> pl.DataFrame:
    """Pairs if they have timestamps, otherwise sequences, which keep the order of time."""
    pairs = [path for path in files if path.name.removesuffix(".gz").endswith("_pair.csv")]
    sequences = [path for path in files if path.name.removesuffix(".gz").endswith("_behaviour.tsv")]
    if pairs:
        path = one_file(pairs, folder, "X_pair.csv of one domain")
        columns = first_line(path, _PAIRS).count(",") + 1
        if columns == 3 or not sequences:
            return _pairs(path, columns, items, notes)
        notes.append(
            f"{path.name} has no timestamps: {sequences[0].name} is read, which has the order of time"
        )
    path = one_file(sequences, folder, "X_pair.csv or X_behaviour.tsv of one domain")
    frame = sequence_clicks(path, _SEQUENCES)
    if not any(name in items for name in names_of(frame, "item")):
        raise UserError(f"{path}: holds no item of X_item.csv; expected files of one domain")
    return frame


def _pairs(path: Path, columns: int, items: set[str], notes: list[str]) -> pl.DataFrame:
    if columns not in (2, 3):
        raise UserError(f"{path}: its first line has {columns} fields; expected {_PAIRS}")
    clicks = ClickBlocks(path, _PAIRS)
    order: list[str] = []
    names = ["first", "second", "third"][:columns]
    for line, block in csv_blocks(path, names, _PAIRS, header=_has_header(path, columns)):
        if not order:
            order = _order(path, block, items)
        clicks.add(block.rename(dict(zip(names, order, strict=True))), line)
    if columns == 2:
        notes.append(f"{path.name} has no timestamps and there is no X_behaviour.tsv: clicks keep its order")
    notes.append(f"the columns of {path.name} are {', '.join(order)}, judged by their content")
    return clicks.frame()


def _has_header(path: Path, columns: int) -> bool:
    fields = first_line(path, _PAIRS).split(",")
    words = all(re.fullmatch(r'"?[A-Za-z_ ]+"?', name) for name in fields)
    return words and (columns == 3 or "user" in fields[0].lower() + fields[1].lower())


def _order(path: Path, block: pl.DataFrame, items: set[str]) -> list[str]:
    """What each column holds: the one with the most names of X_item.csv is the item; a number is the time."""
    shares = [_share(block[name].is_in(items)) for name in block.columns]
    item = max(range(len(shares)), key=shares.__getitem__)
    if shares[item] == 0:
        raise UserError(f"{path}: holds no item of X_item.csv; expected {_PAIRS} of the same domain")
    order = ["user"] * len(shares)
    order[item] = "item"
    if len(order) == 3:
        numbers = [_share(block[name].cast(pl.Float64, strict=False).is_not_null()) for name in block.columns]
        others = [place for place in (2, 1, 0) if place != item]
        order[max(others, key=numbers.__getitem__)] = "time"
    return order


def _share(true: pl.Series) -> float:
    return int(true.sum()) / max(len(true), 1)


def _items(path: Path, notes: list[str]) -> pl.DataFrame:
    """Items with their English text; the Chinese one where there is no other."""
    columns = first_line(path, _ITEMS)
    names = ["item", "one", "two"]
    parts = [block for _, block in csv_blocks(path, names, _ITEMS)]
    table = pl.concat(parts).with_columns(pl.all().str.strip_chars().replace("", None))
    if table["item"].null_count() or table["one"].null_count() == len(table):
        raise UserError(
            f"{path}: a line has no item, or none has a text (first line {columns[:60]!r}); expected {_ITEMS}"
        )
    if (table["item"][0] or "").lower() in ("item", "item_id", "item id", "vid", "bvid"):
        table = table[1:]
    chinese = [
        sum(bool(_CHINESE.search(text)) for text in table[name].drop_nulls().head(1000)) for name in names[1:]
    ]
    english, other = ("one", "two") if chinese[0] < chinese[1] else ("two", "one")
    items = table.select("item", title=pl.coalesce(english, other))
    notes.append(
        f"titles are the English texts; {table[english].null_count():,} items have none and keep the Chinese"
    )
    once = items.unique("item", keep="first", maintain_order=True)
    if len(once) < len(items):
        notes.append(f"{len(items) - len(once):,} lines of {path.name} repeat an item: the first one is kept")
    return once


SOURCE = Source(
    about="NineRec: videos, news and images of nine platforms with texts and covers; one domain at a time",
    published="https://github.com/westlake-repl/NineRec",
    licence="research use; altered copies may not be redistributed",
    files="X_pair.csv or X_behaviour.tsv, X_item.csv, X_cover/ITEM.jpg",
    read=read,
)
