"""Any table of clicks, with or without a table of items, as :class:`RawData`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from adapter4rec.datasets.files import polars_errors, scan_files
from adapter4rec.datasets.options import ColumnSettings, TableSettings
from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.times import time_column
from adapter4rec.utils.errors import UserError, nearest

_TEXTS = ("title", "abstract", "body")
_SAMPLE = 10_000
"""Values from which the format of times is recognised, and whether a column holds numbers."""


def read_table(settings: TableSettings, scratch: Path) -> RawData:
    """The clicks and items of table files.

    Args:
        settings: files and columns.
        scratch: folder for unpacked copies of files, needed until the data have been read.

    Raises:
        UserError: a file is missing or damaged, or lacks a column.
    """
    notes: list[str] = []
    interactions = scan_files(settings.interactions, settings, scratch, notes)
    items = None if settings.items is None else scan_files(settings.items, settings, scratch, notes)
    names = {"interactions": shown_files(settings.interactions), "items": shown_files(settings.items or ())}
    folder = settings.image_folder or (settings.items[0].parent if settings.items else None)
    return raw_data(interactions, items, settings, names, folder, notes)


def raw_data(
    interactions: pl.LazyFrame,
    items: pl.LazyFrame | None,
    columns: ColumnSettings,
    names: Mapping[str, str],
    image_folder: Path | None,
    notes: list[str],
) -> RawData:
    """Clicks and items from frames with any column names.

    Args:
        interactions: one row per click.
        items: one row per item; None for items without content.
        columns: names of the columns.
        names: what the frames are called in messages: ``interactions`` and ``items``.
        image_folder: folder of relative image paths.
        notes: notes so far.

    Raises:
        UserError: a column is missing or has a wrong type.
    """
    clicks = _clicks(
        _filtered(interactions, columns, names["interactions"], notes), columns, names["interactions"]
    )
    if columns.time is None:
        notes.append(
            "no times: the clicks of a user are in the order of the rows (name the column with --time)"
        )
    if items is None:
        if chosen := [name for name in (*_TEXTS, "image") if getattr(columns, name) is not None]:
            raise UserError(f"--{chosen[0]} {getattr(columns, chosen[0])}: needs --items, the table of items")
        return RawData(clicks, clicks.select(pl.col("item").unique(maintain_order=True)), notes)
    return RawData(clicks, _items(items, columns, names["items"], image_folder), notes)


def shown_files(paths: tuple[Path, ...]) -> str:
    """Files in a message: the first, and how many more."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more" if paths else ""


def _schema(frame: pl.LazyFrame, name: str) -> Mapping[str, pl.DataType]:
    with polars_errors(name):
        return frame.collect_schema()


def _require(column: str, option: str, schema: Mapping[str, pl.DataType], name: str) -> None:
    if column not in schema:
        exist = list(schema)
        hint = f"; {suggestion}" if (suggestion := nearest(column, exist)).startswith("did") else ""
        alone = "; is --separator wrong?" if len(exist) == 1 else ""
        raise UserError(
            f"{name}: no column {column!r} (--{option}){hint}; the columns are: {', '.join(exist)}{alone}"
        )


def _text(column: str, schema: Mapping[str, pl.DataType], name: str) -> pl.Expr:
    """A column as text. Whole numbers that a table holds as floats lose the decimal point."""
    dtype = schema[column]
    if dtype.is_float():
        value = pl.col(column)
        whole = pl.when(value == value.floor()).then(value.cast(pl.Int64, strict=False).cast(pl.String))
        return whole.otherwise(value.fill_nan(None).cast(pl.String))
    if dtype.is_nested() or dtype == pl.Binary:
        raise UserError(f"{name}, column {column}: of type {dtype}; expected texts or numbers")
    return pl.col(column).cast(pl.String)


def wanted_values(where: tuple[str, ...]) -> dict[str, list[str]]:
    """The values of each column of ``--where``: ``("a=1", "2", "b=3")`` is a in 1, 2 and b in 3.

    Raises:
        UserError: the first part has no column.
    """
    wanted: dict[str, list[str]] = {}
    values: list[str] = []
    for part in where:
        column, equals, value = part.partition("=")
        if equals:
            values = wanted.setdefault(column.strip(), [])
        elif not wanted:
            raise UserError(f"--where {part}: expected COLUMN=VALUE")
        values.append((value if equals else part).strip())
    return wanted


def _filtered(frame: pl.LazyFrame, columns: ColumnSettings, name: str, notes: list[str]) -> pl.LazyFrame:
    """The rows that ``--where`` keeps."""
    schema = _schema(frame, name)
    for column, values in wanted_values(columns.where or ()).items():
        _require(column, "where", schema, name)
        kept = _text(column, schema, name).str.strip_chars().is_in(values).fill_null(False)
        with polars_errors(name):
            dropped = frame.select(kept.not_().sum()).collect(engine="streaming").item()
        frame = frame.filter(kept)
        notes.append(f"{dropped:,} rows in which {column} is not {' or '.join(values)} left out (--where)")
    return frame


def _clicks(frame: pl.LazyFrame, columns: ColumnSettings, name: str) -> pl.LazyFrame:
    schema = _schema(frame, name)
    chosen = {"user": columns.user, "item": columns.item, "time": columns.time, "rating": columns.rating}
    for option, column in chosen.items():
        if column is not None:
            _require(column, option, schema, name)
    selected = {option: _text(chosen[option] or "", schema, name) for option in ("user", "item")}
    if columns.time is not None:
        label = f"{name}, column {columns.time}"
        sample = _sample(frame, columns.time, name)
        selected["time"] = time_column(frame, columns.time, sample, label, columns.time_format)
    elif columns.time_format is not None:
        raise UserError(f"--time_format {columns.time_format}: needs --time, the column of the times")
    if columns.rating is not None:
        number = _number(columns.rating, schema[columns.rating])
        sample = _sample(frame, columns.rating, name)
        if len(sample) and sample.to_frame().select(number).to_series().null_count() == len(sample):
            raise UserError(f"{name}, column {columns.rating}: {sample[0]!r} is not a number (--rating)")
        selected["rating"] = number
    return frame.select(**selected)


def _sample(frame: pl.LazyFrame, column: str, name: str) -> pl.Series:
    with polars_errors(name):
        return frame.select(column).drop_nulls().head(_SAMPLE).collect(engine="streaming").to_series()


def _number(column: str, dtype: pl.DataType) -> pl.Expr:
    """A column of numbers; those in texts may have a decimal comma."""
    if dtype == pl.String:
        text = pl.col(column).str.strip_chars().str.replace(",", ".", literal=True)
        return text.cast(pl.Float64, strict=False).fill_nan(None)
    return pl.col(column).cast(pl.Float64, strict=False).fill_nan(None)


def _items(frame: pl.LazyFrame, columns: ColumnSettings, name: str, folder: Path | None) -> pl.LazyFrame:
    schema = _schema(frame, name)
    item = columns.item_id or columns.item
    _require(item, "item_id" if columns.item_id else "item", schema, name)
    selected = {"item": _text(item, schema, name)}
    for option in _TEXTS:
        if (column := getattr(columns, option)) is not None:
            _require(column, option, schema, name)
            is_list = schema[column] == pl.List(pl.String)
            selected[option] = pl.col(column).list.join(" ") if is_list else _text(column, schema, name)
    if columns.image is not None:
        _require(columns.image, "image", schema, name)
        path = pl.col(columns.image).cast(pl.String)
        is_url = path.str.contains(r"^(?i)https?://")
        base = f"{folder}/" if folder is not None else ""
        relative = pl.when(path.str.starts_with("/")).then(path).when(path != "").then(pl.lit(base) + path)
        selected["image"] = pl.when(is_url.not_()).then(relative)
        selected["image_url"] = pl.when(is_url).then(path)
    return frame.select(**selected)
