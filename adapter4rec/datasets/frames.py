"""Data frames of pandas or polars as a domain: ``adapter4rec.from_dataframes``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

from adapter4rec.datasets.card import Card
from adapter4rec.datasets.options import ColumnSettings, PrepareSettings
from adapter4rec.datasets.preparing import prepare_domain, require_free
from adapter4rec.datasets.table import raw_data, wanted_values
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = "pd.DataFrame | pl.DataFrame | pl.LazyFrame"

_OF_CLICKS = ("user", "item", "time", "rating")
_OF_ITEMS = ("item", "item_id", "title", "abstract", "body", "image")


@dataclass(frozen=True, kw_only=True)
class _Options(PrepareSettings, ColumnSettings):
    """Options of :func:`from_dataframes`."""


def from_dataframes(
    interactions: Frame,
    items: Frame | None,
    into: str | PathLike[str],
    *,
    log: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Card:
    """Write clicks and items from data frames as a domain that runs read.

    Args:
        interactions: one row per click, of pandas or polars.
        items: one row per item; None if items have no content (id tower).
        into: folder to write: ``users.tsv``, ``items.tsv``, ``card.json``, ``card.md``, and ``images/``.
        log: prints what is being done; by default nothing is printed.
        options: the columns (``user``, ``item``, ``time``, ``title``, …) and the filters (``k_core``,
            ``min_rating``, ``since``, …) of ``python -m Dataset.prepare table``.

    Returns:
        The data card; ``print(card.markdown())`` shows it.

    Raises:
        UserError: unknown option, missing column, nothing left, or the folder has content.
    """
    settings = _Options.from_values(options)
    require_free(Path(into))
    names = {"interactions": "interactions", "items": "items"}
    chosen = [*(getattr(settings, name) for name in _OF_CLICKS), *wanted_values(settings.where or ())]
    clicks = _lazy(interactions, chosen, "interactions")
    chosen = [getattr(settings, name) for name in _OF_ITEMS]
    content = None if items is None else _lazy(items, chosen, "items")
    raw = raw_data(clicks, content, settings, names, settings.image_folder, [])
    return prepare_domain(raw, settings, Path(into), name="data frames", log=log)


def _lazy(frame: Frame, columns: list[str | None], name: str) -> pl.LazyFrame:
    """The wanted columns of a frame; all columns of an empty name are left to messages."""
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if not hasattr(frame, "columns"):
        raise UserError(f"{name}: {type(frame).__name__}; expected a data frame of pandas or polars")
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise UserError(f"{name}: several columns have the name {repeated!r}")
    wanted = {
        str(column): _series(frame[column]) if str(column) in columns else pl.Series([None] * len(frame))
        for column in frame.columns
    }
    return pl.DataFrame(wanted).lazy()


def _series(column: pd.Series[Any]) -> pl.Series:
    """A column of pandas. Without pyarrow, which this does not need, polars reads no texts of pandas."""
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else "O"
    if kind in "iufb":
        return pl.Series(column.to_numpy())
    if getattr(column.dtype, "kind", "") == "M":
        times = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
        return pl.Series(times.to_numpy("datetime64[us]"))
    values = column.astype(object).where(column.notna(), None).tolist()
    if any(isinstance(value, list | tuple | np.ndarray) for value in values):
        lists = [[value] if isinstance(value, str) else value for value in values]
        texts = [None if one is None else [str(text) for text in one if text is not None] for one in lists]
        return pl.Series(texts, dtype=pl.List(pl.String))
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {str}:
        return pl.Series(values, dtype=pl.String)
    if kinds <= {int, float}:
        return pl.Series(values, strict=False)
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)
