"""Lists of the paper's form: a line per user with all clicks, a line per item with its texts.

Several projects publish their data so. Users: a name, a tab, item names separated by spaces, oldest first;
a third column may hold the times of the clicks. Items: a name and up to three texts, separated by tabs.
Neither has a header or quoting.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.lines import (
    check_rows,
    check_text,
    collect,
    count_note,
    scan_fields,
    scan_lines,
)
from adapter4rec.utils.errors import UserError

_TEXTS = ("title", "abstract", "body")
_USERS = "a user, a tab, and names of items separated by spaces"
_ITEMS = "a name of an item and up to three texts, separated by tabs"


def read_sequences(
    users: Path, items: Path, images: Path | None = None, *, numbered: bool = False
) -> RawData:
    """Read the two lists.

    Args:
        users: list of users.
        items: list of items.
        images: folder with the images of the items, if there is one.
        numbered: whether the image of item ``v123`` is the file 123 or v123, ignoring leading zeros.

    Raises:
        UserError: a file is missing, damaged or swapped with another one.
    """
    interactions, notes = _read_users(users)
    table, item_notes = _read_items(items)
    unknown = interactions.join(table.lazy(), on="item", how="anti")
    total = int(collect(users, interactions.select(pl.len())).item())
    n_unknown = int(collect(users, unknown.select(pl.len())).item())
    if n_unknown > total / 2:
        raise UserError(
            f"{users}: {n_unknown:,} of {total:,} clicks are on items that {items} does not list; "
            "the files are swapped or belong to different data sets"
        )
    if images is not None:
        table = _with_images(table, images, numbered)
        item_notes += count_note(table["image"].null_count(), f"items without an image in {images.name}")
    notes += [*item_notes, *count_note(n_unknown, f"clicks on items that {items.name} does not list")]
    return RawData(interactions, table.lazy(), notes)


def _read_users(path: Path) -> tuple[pl.LazyFrame, list[str]]:
    check_text(path, f"a list of users: {_USERS}")
    columns = ["user", "items", "times", "_more"]
    lines = (
        scan_lines(path)
        .filter(pl.col("line").is_not_null())
        .with_columns(pl.col("line").str.splitn("\t", 4).struct.rename_fields(columns))
        .unnest("line")
        .with_columns(pl.col("items", "times").str.extract_all(r"\S+"))
    )
    empty = pl.col("items").is_null() | (pl.col("items").list.len() == 0) | (pl.col("user") == "")
    check_rows(path, lines, empty | pl.col("_more").is_not_null(), f"expected {_USERS}")
    length = pl.col("times").list.len()
    other = pl.col("times").is_not_null() & (length != pl.col("items").list.len())
    check_rows(path, lines, other, "expected as many times in the third column as items in the second")
    timed, users, repeated = collect(
        path,
        lines.select(
            pl.col("times").is_not_null().sum(), n=pl.len(), repeated=pl.len() - pl.col("user").n_unique()
        ),
    ).row(0)
    if 0 < timed < users:
        raise UserError(
            f"{path}: {timed:,} of {users:,} lines have a third column with times; expected all or none"
        )
    notes = [
        f"{users:,} users",
        *count_note(repeated, "lines repeat a user: their clicks follow one another"),
    ]
    if not timed:
        clicks = lines.select("user", item="items").explode("item")
        return clicks, [*notes, "clicks have no times: the order of the list is that of the clicks"]
    clicks = lines.select("user", item="items", time="times").explode("item", "time")
    clicks = clicks.with_columns(pl.col("time").cast(pl.Int64, strict=False))
    if untimed := int(collect(path, clicks.select(pl.col("time").null_count())).item()):
        raise UserError(f"{path}: {untimed:,} times in the third column are not whole numbers of seconds")
    return clicks, notes


def _read_items(path: Path) -> tuple[pl.DataFrame, list[str]]:
    check_text(path, f"a list of items: {_ITEMS}")
    first = collect(path, scan_lines(path).select(pl.col("line").drop_nulls().first())).item()
    n_texts = str(first).count("\t")
    if n_texts > len(_TEXTS):
        raise UserError(f"{path}:1: {n_texts + 1} columns; expected {_ITEMS}")
    columns = ["item", *_TEXTS[:n_texts]]
    rows = scan_fields(path, columns)
    spaced = pl.col("item").str.contains(r"\s") | (pl.col("item") == "")
    check_rows(path, rows, spaced, "expected a name of an item without white space in the first column")
    listed = collect(path, rows.select(columns)).with_columns(pl.col(columns[1:]).replace("", None))
    table = listed.unique("item", keep="first", maintain_order=True)
    notes = [
        f"{len(table):,} items" + (f" with {', '.join(columns[1:])}" if n_texts else ", names only"),
        *count_note(len(listed) - len(table), "items are listed twice: the first line was taken"),
    ]
    if n_texts:
        titles = table["title"]
        entities = titles.str.contains(r"&(#\d+|[A-Za-z]+);").sum()
        notes += count_note(titles.null_count(), "items without a title")
        notes += count_note(titles.str.starts_with('"').sum(), "titles begin with a quotation mark: kept")
        notes += count_note(
            entities, "titles have HTML entities such as &amp;: kept, see the option that decodes them"
        )
    return table, notes


def _with_images(table: pl.DataFrame, images: Path, numbered: bool) -> pl.DataFrame:
    from adapter4rec.data.images.sources import image_files  # imports lmdb, which --help does not need

    files = image_files(images, [name.encode() for name in table["item"]], numbered=numbered)
    paths = [str(files[name.encode()]) if name.encode() in files else None for name in table["item"]]
    return table.with_columns(image=pl.Series(paths, dtype=pl.String))
