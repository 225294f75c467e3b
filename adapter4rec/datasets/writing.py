"""Writing a prepared domain: ``users.tsv``, ``items.tsv`` and the image files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
from tqdm import tqdm

from adapter4rec.datasets.catalogue import TEXTS, Catalogue
from adapter4rec.datasets.clicks import Clicks
from adapter4rec.datasets.texts import IMAGE_NAME, ITEM_NAME, USER_NAME, mapped_names
from adapter4rec.datasets.times import unit_of
from adapter4rec.utils.errors import UserError

_USERS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Written:
    """What the files of a domain contain.

    Attributes:
        items: one row per line of ``items.tsv``.
        item: the item of each click, as a row of ``items``, int32 ``[clicks]``.
    """

    items: pl.DataFrame
    item: np.ndarray


def write_domain(
    folder: Path, clicks: Clicks, catalogue: Catalogue, *, unclicked: bool, timestamps: bool, notes: list[str]
) -> Written:
    """Write the files of a domain.

    Args:
        folder: an empty folder.
        clicks: clicks sorted by user and time.
        catalogue: the items.
        unclicked: whether to write items without clicks.
        timestamps: whether to write the times.
        notes: one line is added for names that had to change.
    """
    items, item = _numbered_items(clicks, catalogue, unclicked)
    names, changed = mapped_names(items["item"], IMAGE_NAME if "image" in items.columns else ITEM_NAME)
    if changed:
        first = (names != items["item"]).arg_true()[0]
        notes.append(
            f"{changed:,} item names with white space: each run of it is an underscore, such as "
            f"{names[first]!r} for {items['item'][first]!r}; all in renamed_items.csv"
        )
        _write_renamed(folder / "renamed_items.csv", names, items["item"])
    items = items.with_columns(names.alias("item"))
    _write_items(folder / "items.tsv", items)
    if "image" in items.columns:
        _write_images(folder / "images", items.drop_nulls("image"))
    _write_users(folder / "users.tsv", clicks, item, names, timestamps, notes)
    return Written(items, item)


def _numbered_items(clicks: Clicks, catalogue: Catalogue, unclicked: bool) -> tuple[pl.DataFrame, np.ndarray]:
    wanted = catalogue.rows_of(clicks, unclicked=unclicked)
    number = np.cumsum(wanted, dtype=np.int32) - 1
    return catalogue.frame.filter(pl.Series(wanted)), number[catalogue.row_of_item[clicks.item]]


def _write_items(path: Path, items: pl.DataFrame) -> None:
    last = max((place for place, name in enumerate(TEXTS, 1) if name in items.columns), default=0)
    columns = [pl.col("item")]
    columns += [pl.col(name).fill_null("") if name in items.columns else pl.lit("") for name in TEXTS[:last]]
    lines = items.select(pl.concat_str(columns, separator="\t").alias("line"))["line"]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for block in lines.to_frame().iter_slices(_USERS_AT_ONCE):
            file.write("\n".join(block["line"]) + "\n")


def _write_renamed(path: Path, names: pl.Series, originals: pl.Series) -> None:
    """A CSV of the names that changed: the name in this domain, and the original one."""
    both = pl.DataFrame({"name": names, "original": originals})
    both.filter(pl.col("name") != pl.col("original")).write_csv(path)


def _write_users(
    path: Path, clicks: Clicks, item: np.ndarray, names: pl.Series, timestamps: bool, notes: list[str]
) -> None:
    item_names = np.array(names.to_list(), object)
    counts = clicks.user_counts()
    present = np.flatnonzero(counts)
    stops = np.cumsum(counts[present]).tolist()
    originals = clicks.user_names.gather(present)
    users, changed = mapped_names(originals, USER_NAME)
    if changed:
        notes.append(
            f"{changed:,} user names with control characters: each run of them is an underscore; all in "
            "renamed_users.csv"
        )
        _write_renamed(path.with_name("renamed_users.csv"), users, originals)
    times = None
    if timestamps and clicks.time is not None:
        times = clicks.time // unit_of(clicks.time)
    with path.open("w", encoding="utf-8", newline="\n") as file, _progress(len(users)) as bar:
        start = 0
        for block in range(0, len(users), _USERS_AT_ONCE):
            block_stops = stops[block : block + _USERS_AT_ONCE]
            words = item_names[item[start : block_stops[-1]]].tolist()
            numbers = None if times is None else times[start : block_stops[-1]].astype(str).tolist()
            file.writelines(_lines(users[block : block + _USERS_AT_ONCE], block_stops, start, words, numbers))
            start = block_stops[-1]
            bar.update(len(block_stops))


def _lines(
    users: pl.Series, stops: list[int], first: int, words: list[str], numbers: list[str] | None
) -> Iterator[str]:
    start = 0
    for user, stop in zip(users, stops, strict=True):
        line = f"{user}\t{' '.join(words[start : stop - first])}"
        if numbers is not None:
            line += f"\t{' '.join(numbers[start : stop - first])}"
        yield line + "\n"
        start = stop - first


def _progress(total: int) -> tqdm[NoReturn]:
    return tqdm(total=total, desc="users", unit="", disable=not sys.stderr.isatty())


def _write_images(folder: Path, items: pl.DataFrame) -> None:
    """Link or copy the images to ``NAME.ext``, as ``build_lmdb_hm.py`` finds them.

    Raises:
        UserError: two items have the same file name, perhaps because the file system ignores case.
    """
    folder.mkdir()
    rows = tqdm(
        items.select("item", "image").iter_rows(),
        total=items.height,
        desc="images",
        disable=not sys.stderr.isatty(),
    )
    for name, image in rows:
        source = Path(image).resolve()
        target = folder / f"{name}{source.suffix.lower()}"
        try:
            os.link(source, target)
        except FileExistsError:
            raise UserError(f"item {name!r}: another item's image has the name {target.name}, too") from None
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)
