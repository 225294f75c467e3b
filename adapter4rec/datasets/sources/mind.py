"""MIND, small and large: news articles and impression logs of Microsoft News.

Published at https://msnews.github.io; format: https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md
Each of the archives train, dev and (large only) test holds two files, fields separated by tabs, no quoting:

- ``behaviors.tsv``, 5 columns: impression, user, time (``11/15/2019 8:55:22 AM``), history (names of news,
  separated by spaces, may be empty), impressions (``N1-0 N2-1``: shown, clicked; in test without labels);
- ``news.tsv``, 8 columns: news, category, subcategory, title, abstract, URL, entities of title and abstract.

The history of a user is the same in all impressions of a log, and has no times. That of a later log repeats
the earlier one and the clicks since. :func:`_history_clicks` has the rule that merges them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from tqdm import tqdm

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.blocks import lazy
from adapter4rec.datasets.sources.lines import (
    check_rows,
    check_text,
    collect,
    count_note,
    find_named,
    missing,
    scan_fields,
)
from adapter4rec.utils.errors import UserError

_FILES = "behaviors.tsv and news.tsv of MINDsmall or MINDlarge, in the folders train, dev, test"
_BEHAVIORS = ("impression", "user", "time", "history", "impressions")
_NEWS = ("item", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_TIME = "%m/%d/%Y %I:%M:%S %p"
_WORD = r"\S+"
_CLICKED = r"\S+-1\b"
_PARTS = 8
"""Histories are read for a part of the users after another, which bounds the memory."""
_IS_NEW = pl.col("known") >= pl.col("first_seen")


def read(folder: Path) -> RawData:
    """Read the unpacked archives below ``folder``: any of train, dev and test, of one size."""
    behaviors = _find_logs(folder)
    logs = pl.concat([_scan_log(path, number) for number, path in enumerate(behaviors)])
    items, news_notes = _read_news(folder, [path.with_name("news.tsv") for path in behaviors])
    clicks = collect(folder, _impression_clicks(logs))
    parts, counts = [], Counter[str]()
    starts = collect(folder, logs.group_by("log").agg(start=pl.col("time").min()))
    users = collect(folder, logs.select(pl.col("user").unique()))["user"].sort()
    for some in tqdm(_ranges(users), desc="histories", unit="part", disable=not sys.stderr.isatty()):
        ours = pl.col("user").is_between(pl.lit(some[0]), pl.lit(some[-1]))
        part, found = _histories_of(folder, logs.filter(ours), clicks.lazy().filter(ours), starts, items)
        parts.append(part)
        counts.update(found)
    parts.append(_compact(clicks))
    counts["unknown"] += clicks.select(_is_unknown(items).sum()).item()
    notes = [*_log_notes(folder, behaviors, logs), *_history_notes(counts), *news_notes]
    return RawData(lazy(pl.concat(parts, rechunk=False)), items.lazy(), notes)


def _histories_of(
    folder: Path, logs: pl.LazyFrame, clicks: pl.LazyFrame, starts: pl.DataFrame, items: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The clicks of some users' histories that nothing else contains, and the counts for the notes."""
    distinct = collect(folder, _distinct_histories(logs, starts.lazy()))
    histories = collect(folder, _history_clicks(distinct.lazy(), clicks))
    counts = histories.select(
        new=_IS_NEW.sum(), known=_IS_NEW.not_().sum(), unknown=(_is_unknown(items) & _IS_NEW).sum()
    ).row(0, named=True)
    return _compact(histories.filter(_IS_NEW)), {"repeats": distinct["repeats"].sum(), **counts}


def _ranges(users: pl.Series) -> list[pl.Series]:
    """The sorted users in as many ranges as :data:`_PARTS`, or fewer."""
    size = max(-(-len(users) // _PARTS), 1)
    return [users[first : first + size] for first in range(0, len(users), size)]


def _compact(clicks: pl.DataFrame) -> pl.DataFrame:
    """Clicks with names as categories: some 16 bytes each."""
    return clicks.select(pl.col("user", "item").cast(pl.Categorical), "time")


def _find_logs(folder: Path) -> list[Path]:
    """``behaviors.tsv`` of each part, in the order train, dev, test; newer archives nest their folder."""
    found = find_named(folder, "behaviors.tsv")
    if not found:
        raise missing(folder, _FILES)
    seen: dict[tuple[int, bytes], Path] = {}
    for path in found:
        check_text(path, "behaviors.tsv of MIND, 5 columns")
        check_text(path.with_name("news.tsv"), f"news.tsv of MIND, 8 columns, beside {path.name}")
        with path.open("rb") as file:
            beginning = (path.stat().st_size, file.read(1 << 20))
        if beginning in seen:
            raise UserError(f"{path}: the same file as {seen[beginning]}; keep one of them in {folder}")
        seen[beginning] = path
    names = [str(path.relative_to(folder)).lower() for path in found]
    if any("small" in name for name in names) and any("large" in name for name in names):
        raise UserError(
            f"{folder}: holds MINDsmall and MINDlarge; expected one of them, set --raw to its folder"
        )
    parts = ("train", "dev", "val", "test")
    ranks = [next((rank for rank, part in enumerate(parts) if part in name), len(parts)) for name in names]
    return [path for _, path in sorted(zip(ranks, found, strict=True))]


def _scan_log(path: Path, number: int) -> pl.LazyFrame:
    fields = scan_fields(path, _BEHAVIORS)
    labels = pl.col("impressions").str.count_matches(r"\S-[01]( |$)")
    log = fields.with_columns(
        pl.col("time").str.to_datetime(_TIME, strict=False).dt.epoch("s"),
        pl.col("history").str.strip_chars(),
        shown=pl.col("impressions").str.count_matches(_WORD),
        labels=labels,
        log=pl.lit(number, pl.UInt8),
    )
    untimed = pl.col("time").is_null()
    mixed = (pl.col("shown") == 0) | ((pl.col("labels") != 0) & (pl.col("labels") != pl.col("shown")))
    if collect(path, log.select((untimed | mixed).any())).item():
        check_rows(path, log, untimed, "expected a time such as 11/15/2019 8:55:22 AM in the third column")
        check_rows(path, log, mixed, "expected news such as N55689-1 N35729-0 in the fifth column")
    return log.drop("impression", "row")


def _impression_clicks(logs: pl.LazyFrame) -> pl.LazyFrame:
    """Clicked news, with the time of their impression; those of one impression as they are listed."""
    clicked = pl.col("impressions").str.extract_all(_CLICKED)
    return (
        logs.filter(pl.col("labels") > 0)
        .select("user", "time", item=clicked)
        .explode("item")
        .filter(pl.col("item").is_not_null())
        .with_columns(pl.col("item").str.strip_suffix("-1"))
    )


def _distinct_histories(logs: pl.LazyFrame, starts: pl.LazyFrame) -> pl.LazyFrame:
    """Each history once, always in the same order.

    Columns: ``user``, ``log``, ``history``, ``first_seen`` (time of the user's first impression with it),
    ``repeats`` (further impressions with it), ``start`` (of the log), ``first_of_log``.
    """
    return (
        logs.filter(pl.col("history") != "")
        .group_by("user", "history")
        .agg(first_seen=pl.col("time").min(), log=pl.col("log").min(), repeats=pl.len() - 1)
        .group_by("user", "log", "first_seen")
        .agg(
            pl.col("history").sort_by(pl.col("history").str.len_bytes(), "history").last(),
            pl.col("repeats").sum(),
        )
        .join(starts, on="log")
        .with_columns(first_of_log=pl.col("first_seen") == pl.col("first_seen").min().over("user", "log"))
        .sort("log", "user", "first_seen")
    )


def _history_clicks(distinct: pl.LazyFrame, clicks: pl.LazyFrame) -> pl.LazyFrame:
    """Clicks of the histories, in their order, before the log that publishes them.

    Columns: ``user``, ``item``, ``time``, ``first_seen`` and ``known``: the first time at which the user's
    histories or clicks contain the item. A click with ``known < first_seen`` repeats an earlier log.

    A history has no times. Its clicks take the last seconds before its log begins, or, if it is not the first
    of the user in this log, before the impression that first shows it.
    """
    items = pl.col("history").str.extract_all(_WORD)
    exploded = (
        distinct.with_columns(item=items, back=pl.int_ranges(items.list.len(), 0, -1))
        .explode("item", "back")
        .with_columns(
            time=pl.when("first_of_log").then("start").otherwise("first_seen") - pl.col("back"),
        )
        .select("user", "item", "time", "first_seen")
    )
    sightings = pl.concat(
        [exploded.select("user", "item", known="first_seen"), clicks.select("user", "item", known="time")]
    )
    # Most users have one history and no click before it, so nothing is repeated.
    first_seen = pl.col("first_seen")
    seen = distinct.group_by("user").agg(earliest=first_seen.min(), latest=first_seen.max())
    clicked = clicks.group_by("user").agg(clicked=pl.col("time").min())
    earliest = pl.min_horizontal("earliest", "clicked")
    several = seen.join(clicked, on="user", how="left").filter(earliest < pl.col("latest"))
    known = sightings.join(several, on="user", how="semi").group_by("user", "item").agg(pl.col("known").min())
    return exploded.join(known, on=["user", "item"], how="left", maintain_order="left").with_columns(
        pl.col("known").fill_null(pl.col("first_seen"))
    )


def _log_notes(folder: Path, behaviors: list[Path], logs: pl.LazyFrame) -> list[str]:
    counts = collect(
        folder,
        logs.select(
            impressions=pl.len(),
            unlabelled=(pl.col("labels") == 0).sum(),
            several=(pl.col("impressions").str.count_matches(_CLICKED) > 1).sum(),
            empty=(pl.col("history") == "").sum(),
        ),
    ).row(0, named=True)
    names = ", ".join(str(path.parent.relative_to(folder)) for path in behaviors)
    return [
        f"{counts['impressions']:,} impressions in {len(behaviors)} logs ({names}): merged in order of time",
        *count_note(counts["unlabelled"], "impressions without labels (test): only their history was read"),
        *count_note(
            counts["several"], "impressions with several clicks: these have one time, kept as listed"
        ),
        *count_note(counts["empty"], "impressions with an empty history: their clicks were read"),
    ]


def _is_unknown(items: pl.DataFrame) -> pl.Expr:
    return ~pl.col("item").is_in(items["item"].implode())


def _history_notes(counts: Mapping[str, int]) -> list[str]:
    return [
        *count_note(counts["repeats"], "impressions repeat the history of another one: it was read once"),
        *count_note(counts["new"], "clicks of histories have no time: put before their log, in their order"),
        *count_note(counts["known"], "clicks of later histories were already known: left out"),
        *count_note(counts["unknown"], "clicks on news that no news.tsv lists"),
    ]


def _read_news(folder: Path, paths: list[Path]) -> tuple[pl.DataFrame, list[str]]:
    """News of all parts, one row each; where parts differ, the last one counts."""
    columns = ["item", "title", "abstract"]
    parts = [
        collect(path, scan_fields(path, _NEWS).select(columns).with_columns(part=pl.lit(number)))
        for number, path in enumerate(paths)
    ]
    every = pl.concat(parts).with_columns(pl.col("title", "abstract").replace("", None))
    news = every.unique("item", keep="last", maintain_order=True)
    differing = every.n_unique(columns) - len(news)
    quoted = news["title"].str.starts_with('"').sum()
    return news.drop("part"), [
        f"{len(news):,} news in {len(paths)} files, {len(every) - len(news):,} of them listed more than once",
        *count_note(differing, "news differ between the files: the last title and abstract were taken"),
        *count_note(news["title"].null_count(), "news without a title"),
        *count_note(news["abstract"].null_count(), "news without an abstract"),
        *count_note(quoted, "titles begin with a quotation mark: kept (the files have no quoting)"),
    ]


SOURCE = Source(
    about="MIND small and large: English news of Microsoft News, with titles and abstracts",
    published="https://msnews.github.io",
    licence="Microsoft Research License Terms: research only",
    files=_FILES,
    read=read,
)
