"""Adressa: event logs of the Norwegian newspaper Adresseavisen.

Published at https://reclab.idi.ntnu.no/dataset as ``one_week.tar.gz`` and ``three_month.tar.gz``: one file
for each day, named ``20170101`` and so on, one JSON object per line and event. Fields read: ``userId``,
``id`` (of the article), ``time`` (Unix seconds), ``title``. Format: Gulla et al., The Adressa dataset for
news recommendation, 2017.

Events without ``id`` are visits of the front page or of a section. Titles change when articles are edited.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from glob import escape
from pathlib import Path

import polars as pl
from tqdm import tqdm

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.blocks import lazy
from adapter4rec.datasets.sources.lines import check_text, count_note, missing
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import files_under

_FILES = "files of days such as 20170101 (one_week or three_month), JSON lines"
_DAY = re.compile(r"20\d{6}(\.jsonl?)?")
_PACKED_DAY = re.compile(r"20\d{6}(\.jsonl?)?\.gz")
_SCHEMA = {"userId": pl.String, "id": pl.String, "time": pl.Float64, "title": pl.String}
_EVENT = "one event per line, a JSON object with userId, id, time, title"


def read(folder: Path) -> RawData:
    """Read the files of all days below ``folder``."""
    days = _find_days(folder)
    clicks, titles, counts = [], [], Counter[str]()
    for path in tqdm(days, desc="days", unit="day", disable=not sys.stderr.isatty()):
        check_text(path, f"a day of Adressa: {_EVENT}", line_end=False)
        events = _read_day(path)
        counts.update(events.select(**_counts()).row(0, named=True))
        read = events.filter(_is_click())
        titles.append(read.group_by("id", "title").agg(pl.col("time").max()))
        click = {"user": pl.col("userId").cast(pl.Categorical), "item": pl.col("id").cast(pl.Categorical)}
        clicks.append(read.select(**click, time=pl.col("time").cast(pl.Int64, strict=False)))
    if counts["articles"] == 0:
        raise UserError(f"{days[0]}: no event has userId, id and time; expected {_EVENT}")
    items = _latest_titles(pl.concat(titles)).sort("item")
    interactions = lazy(pl.concat(clicks, rechunk=False))
    return RawData(interactions, items.select("item", "title").lazy(), _notes(days, counts, items))


def _read_day(path: Path) -> pl.DataFrame:
    """The events of a day; an empty title or id is null."""
    events = pl.scan_ndjson(escape(str(path)), schema=_SCHEMA)
    try:
        found = events.collect(engine="streaming")
    except pl.exceptions.ComputeError as error:
        _check_lines(path)
        raise UserError(f"{path}: {error}") from None
    return found.with_columns(pl.col("userId", "id", "title").str.strip_chars().replace("", None))


def _find_days(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold the files of the download")
    found = [*files_under(folder)]
    days = sorted(path for path in found if _DAY.fullmatch(path.name))
    packed = [path for path in found if _PACKED_DAY.fullmatch(path.name)]
    if packed:
        raise UserError(f"{packed[0]}: the file is compressed with gzip; unpack it first")
    if not days:
        raise missing(folder, _FILES)
    by_day: dict[str, Path] = {}
    for path in days:
        twin = by_day.setdefault(path.stem, path)
        if twin != path:
            raise UserError(
                f"{path}: the same day as {twin}; expected one_week or three_month, set --raw to its folder"
            )
    return days


def _is_click() -> pl.Expr:
    return pl.all_horizontal(pl.col("userId", "id", "time").is_not_null())


def _counts() -> dict[str, pl.Expr]:
    return {
        "events": pl.len(),
        "articles": _is_click().sum(),
        "no_id": pl.col("id").is_null().sum(),
        "no_user": (pl.col("id").is_not_null() & pl.col("userId").is_null()).sum(),
        "no_time": (
            pl.col("id").is_not_null() & pl.col("userId").is_not_null() & pl.col("time").is_null()
        ).sum(),
    }


def _latest_titles(seen: pl.DataFrame) -> pl.DataFrame:
    """The latest title of each article, and how many titles it had."""
    latest = pl.col("title").sort_by("time", "title").drop_nulls().last()
    return seen.group_by(item="id").agg(latest, titles=pl.col("title").drop_nulls().n_unique())


def _check_lines(path: Path) -> None:
    """Find the line that polars could not read."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                end = "" if line.endswith(b"\n") else "; the file is cut off"
                raise UserError(f"{path}:{number}: not JSON{end}; expected {_EVENT}") from None
            if not isinstance(event, dict):
                raise UserError(f"{path}:{number}: expected {_EVENT}")
            if not isinstance(event.get("time", 0), int | float):
                raise UserError(f"{path}:{number}: time is not a number of seconds; expected {_EVENT}")


def _notes(days: list[Path], counts: Mapping[str, int], titles: pl.DataFrame) -> list[str]:
    return [
        f"{counts['events']:,} events of {len(days)} days, {counts['articles']:,} of them clicks on articles",
        *count_note(counts["no_id"], "events without id (front page, sections): left out"),
        *count_note(counts["no_user"], "events on articles without userId: left out"),
        *count_note(counts["no_time"], "events on articles without time: left out"),
        *count_note(
            titles.filter(pl.col("titles") > 1).height, "articles changed their title: the latest was taken"
        ),
        *count_note(titles["title"].null_count(), "articles without a title"),
    ]


SOURCE = Source(
    about="Adressa: Norwegian news of Adresseavisen, with titles",
    published="https://reclab.idi.ntnu.no/dataset",
    licence="CC BY-NC-SA 4.0",
    files=_FILES,
    read=read,
)
