"""Items of a data set: one row each, clean texts, and names that the files can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from adapter4rec.datasets.clicks import Clicks
from adapter4rec.datasets.files import polars_errors
from adapter4rec.datasets.options import PrepareSettings
from adapter4rec.datasets.texts import cleaned_texts, name_expression
from adapter4rec.utils.errors import UserError

TEXTS = ("title", "abstract", "body")


@dataclass
class Catalogue:
    """Items.

    Attributes:
        frame: one row per item: ``item``, and ``title``, ``abstract``, ``body``, ``image`` where the data
            have them; with ``--images`` also ``image_url``. Null is missing.
        row_of_item: int32 ``[items of the clicks]``, row in ``frame``; −1 if the item is in no row.
        require: what an item must have (``--require``).
    """

    frame: pl.DataFrame
    row_of_item: np.ndarray
    require: tuple[str, ...]

    def complete(self) -> np.ndarray:
        """Whether each item of the clicks has a row with all that is required, bool ``[items of clicks]``."""
        whole = np.ones(self.frame.height + 1, bool)
        whole[-1] = False  # row -1: in no row
        whole[:-1] = self._complete_rows()
        complete: np.ndarray = whole[self.row_of_item]
        return complete

    def rows_of(self, clicks: Clicks, *, unclicked: bool) -> np.ndarray:
        """Whether each row is an item of the clicks, or with ``unclicked`` has what is required."""
        wanted = self._complete_rows() if unclicked else np.zeros(self.frame.height, bool)
        wanted[self.row_of_item[clicks.item]] = True
        return wanted

    def _complete_rows(self) -> np.ndarray:
        """Whether each row has what is required; an image may still be an address."""
        rows = np.ones(self.frame.height, bool)
        for column in self.require:
            there = self.frame[column].is_not_null()
            if column == "image" and "image_url" in self.frame.columns:
                there |= self.frame["image_url"].is_not_null()
            rows &= there.to_numpy()
        return rows


def read_catalogue(
    items: pl.LazyFrame, clicks: Clicks, settings: PrepareSettings, notes: list[str], label: str = "items"
) -> Catalogue:
    """Read the items and find those of the clicks.

    Raises:
        UserError: the files cannot be read, or no click is on an item of the table.
    """
    with polars_errors(label):
        name = name_expression("item").str.normalize("NFC")
        frame = items.with_columns(name).collect(engine="streaming")
    frame = _with_addresses(frame, settings, notes)
    columns = frame.columns
    if settings.unclicked == "drop" and clicks.item_names.len() < frame.height:
        clicked = frame.filter(pl.col("item").is_in(clicks.item_names.implode()))
        if clicked.height:
            if unclicked := frame.height - clicked.height:
                notes.append(f"{unclicked:,} rows of items without clicks left out")
            frame = clicked
    frame = _one_row_each(frame, notes)
    if "title" in columns:
        several = frame["title"].str.strip_chars().str.contains("\n", literal=True).fill_null(False)
        if several.any():
            notes.append(
                f"{several.sum():,} titles have several lines, such as that of "
                f"{frame['item'].filter(several)[0]!r}; if rows are lost, as quotation marks are part of "
                "titles, set --quoting false"
            )
    for column in TEXTS:
        if column in columns:
            texts = cleaned_texts(frame[column].cast(pl.String), strip_html=settings.html == "strip")
            frame = frame.with_columns(texts.alias(column))
    if "image" in columns:
        frame = _with_files(frame, notes)
    rows = _rows_of(clicks.item_names, frame["item"])
    unknown = np.count_nonzero(rows < 0)
    if unknown == len(rows):
        raise UserError(
            "none of the clicks is on an item of the table; wrong column, or files swapped? Clicks are on "
            f"items such as {_examples(clicks.item_names)}; the table has {_examples(frame['item'])}"
        )
    if unknown:
        shown = _examples(clicks.item_names.filter(pl.Series(rows < 0)))
        notes.append(f"{unknown:,} clicked items are in no row of the items, such as {shown}")
    return Catalogue(frame, rows, _required(settings, columns))


def _examples(names: pl.Series) -> str:
    return ", ".join(map(repr, names.head(3)))


def _required(settings: PrepareSettings, columns: list[str]) -> tuple[str, ...]:
    if settings.require == ("auto",):
        return next(((name,) for name in ("title", "image") if name in columns), ())
    if settings.require == ("none",):
        return ()
    for name in settings.require:
        if name not in columns:
            hint = "; --images downloads those that have an address" if name == "image" else ""
            raise UserError(
                f"--require {name}: the items have no {name} (of a table, name the column with --{name})"
                + hint
            )
    return settings.require


def _with_addresses(frame: pl.DataFrame, settings: PrepareSettings, notes: list[str]) -> pl.DataFrame:
    """The known columns; addresses of images only if they are to be downloaded."""
    names = ["item", *TEXTS, "image"]
    addresses = frame["image_url"].count() if "image_url" in frame.columns else 0
    if settings.images is not None:
        if not addresses:
            raise UserError(f"--images {settings.images}: the items have no addresses of images")
        names.append("image_url")
        if "image" not in frame.columns:
            frame = frame.with_columns(image=pl.lit(None, pl.String))
    elif addresses:
        notes.append(
            f"{addresses:,} rows of items have the address of an image: --images FOLDER downloads them"
        )
        if "image" in frame.columns and not frame["image"].count():
            frame = frame.drop("image")
    return frame.select(name for name in names if name in frame.columns)


def _one_row_each(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Merge the rows of an item: the first value of each column that is there counts."""
    height = frame.height
    frame = frame.filter(pl.col("item").is_not_null())
    if frame.height < height:
        notes.append(f"{height - frame.height:,} rows of items without a name left out")
    if (distinct := frame["item"].n_unique()) < frame.height:
        more = frame.height - distinct
        others = [name for name in frame.columns if name != "item"]
        differ = _contradictions(frame, others)
        frame = frame.group_by("item", maintain_order=True).agg(
            pl.col(name).filter(pl.col(name).is_not_null() & (pl.col(name) != "")).first() for name in others
        )
        notes.append(
            f"{more:,} further rows of items that had one already: the first value of each column counts "
            f"({differ:,} items with different values)"
        )
    return frame


def _contradictions(frame: pl.DataFrame, columns: list[str]) -> int:
    if not columns:
        return 0
    counts = frame.group_by("item").agg(pl.col(columns).drop_nulls().n_unique())
    return counts.filter(pl.any_horizontal(pl.col(columns) > 1)).height


def _with_files(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Paths of images that exist; null otherwise."""
    paths = frame["image"].to_list()
    there = [path if path is not None and Path(path).is_file() else None for path in paths]
    missing = [path for path, found in zip(paths, there, strict=True) if path is not None and found is None]
    if missing:
        notes.append(f"{len(missing):,} image files do not exist, such as {Path(missing[0]).name}")
    return frame.with_columns(pl.Series("image", there, dtype=pl.String))


def _rows_of(names: pl.Series, known: pl.Series) -> np.ndarray:
    """Row of each name in ``known``; −1 if it is not there."""
    table = pl.DataFrame({"item": known, "row": np.arange(len(known), dtype=np.int32)})
    found = pl.DataFrame({"item": names}).join(table, on="item", how="left", maintain_order="left")
    return found["row"].fill_null(-1).to_numpy()
