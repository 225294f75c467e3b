"""What a public data set, or any table, is before it is prepared: clicks and items as columns.

Readers (``datasets/sources/``, one module per data set) turn the files of an owner into :class:`RawData`.
What follows is the same for all of them (``datasets/preparing.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True)
class RawData:
    """Clicks and items of a data set, not filtered.

    Attributes:
        interactions: one row per click, in any order. Columns: ``user`` and ``item`` (String); where the
            owner publishes them, ``time`` (Int64, Unix seconds, or any number that orders the clicks of a
            user) and ``rating`` (Float64). Rows of equal time keep their order.
        items: one row per item, ``item`` (String) unique. Further columns, where there are any: ``title``,
            ``abstract``, ``body`` (String, null if missing), ``image`` (String, path of a file) and
            ``image_url`` (String).
        notes: one line for each quirk that was met and what was done about it, with counts.
    """

    interactions: pl.LazyFrame
    items: pl.LazyFrame
    notes: list[str] = field(default_factory=list)
