"""Clicks as flat arrays: encoding, filtering, and sorting by user and time."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from adapter4rec.datasets.files import polars_errors
from adapter4rec.datasets.options import PrepareSettings
from adapter4rec.datasets.texts import name_expression
from adapter4rec.datasets.times import moment, unit_of
from adapter4rec.utils.errors import UserError

_YEAR = re.compile(r"(19|20)\d\d")
_SECONDS_TO_1973 = 1e8
"""Smaller numbers are no Unix times; some data sets count clicks."""


@dataclass(frozen=True)
class Step:
    """What a step of the preparation dropped.

    Attributes:
        what: the step, in words.
        clicks: number of clicks that it dropped.
        users: number of users without clicks after it, that had clicks before.
        items: the same of items.
    """

    what: str
    clicks: int
    users: int
    items: int


@dataclass
class Clicks:
    """Clicks of a data set, at first in the order of the rows, later by user and time.

    Attributes:
        user: int32 ``[clicks]``, row in ``user_names``.
        item: int32 ``[clicks]``, row in ``item_names``.
        time: int64 ``[clicks]``, or None.
        user_names: names in the order of their first click, String.
        item_names: the same of items.
        steps: what was dropped so far.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None
    user_names: pl.Series
    item_names: pl.Series
    steps: list[Step] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.user)

    def user_counts(self) -> np.ndarray:
        """Number of clicks of each user, int64 ``[users]``."""
        return np.bincount(self.user, minlength=len(self.user_names))

    def item_counts(self) -> np.ndarray:
        """Number of clicks on each item, int64 ``[items]``."""
        return np.bincount(self.item, minlength=len(self.item_names))

    def keep(self, wanted: np.ndarray, what: str) -> None:
        """Keep the clicks where ``wanted`` is true, and record the step."""
        dropped, lost = len(self) - int(wanted.sum()), (0, 0)
        if dropped:
            users, items = self._present()
            self._take(wanted)
            users_left, items_left = self._present()
            lost = (users - users_left, items - items_left)
        self.steps.append(Step(what, dropped, *lost))
        if not len(self):
            raise UserError(f"no clicks are left after this step: {what}")

    def _take(self, wanted: np.ndarray) -> None:
        self.user = self.user[wanted]
        self.item = self.item[wanted]
        if self.time is not None:
            self.time = self.time[wanted]

    def _present(self) -> tuple[int, int]:
        return int(np.count_nonzero(self.user_counts())), int(np.count_nonzero(self.item_counts()))

    def sort(self) -> None:
        """Sort by user and time. Clicks of equal time keep their order."""
        if self.time is not None and not bool((self.time[1:] >= self.time[:-1]).all()):
            self._take(np.argsort(self.time, kind="stable"))
        if not bool((self.user[1:] >= self.user[:-1]).all()):
            self._take(np.argsort(self.user, kind="stable"))


def read_clicks(interactions: pl.LazyFrame, settings: PrepareSettings, label: str = "clicks") -> Clicks:
    """Read the clicks, without those that lack a name or a time, a rating or a time in the chosen range.

    Raises:
        UserError: the files cannot be read, a column for an option is missing, or no click is left.
    """
    with polars_errors(label):
        columns = interactions.collect_schema().names()
        _require_columns(columns, settings)
        kept = [
            name_expression(name).cast(pl.Categorical(pl.Categories.random())) for name in ("user", "item")
        ]
        kept += [pl.col("time").cast(pl.Int64, strict=False)] if "time" in columns else []
        reasons = [("clicks without a user or an item", pl.col("user").is_null() | pl.col("item").is_null())]
        if "time" in columns:
            reasons.append(("clicks without a time", pl.col("time").is_null()))
        if settings.min_rating is not None:
            least = pl.lit(settings.min_rating, pl.Float32)  # many tables hold ratings with this precision
            low = (pl.col("rating").cast(pl.Float32) >= least).fill_null(False).not_()
            reasons.append((f"ratings below {settings.min_rating:g}, or missing", low))
        reason = pl.lit(0, pl.UInt8)
        for number, (_, applies) in reversed(list(enumerate(reasons, 1))):
            reason = pl.when(applies).then(pl.lit(number, pl.UInt8)).otherwise(reason)
        wanted = ("user", "item", "time") if "time" in columns else ("user", "item")
        frame = interactions.with_columns(*kept).with_columns(reason=reason).select(*wanted, "reason")
        clicks, why = _encoded(frame.collect(engine="streaming"))
    if not len(clicks):
        raise UserError(f"{label}: no rows")
    for number, (what, _) in enumerate(reasons, 1):
        clicks.keep(why != number, what)
        why = why[why != number]
    return clicks


def _require_columns(columns: list[str], settings: PrepareSettings) -> None:
    if settings.min_rating is not None and "rating" not in columns:
        raise UserError("--min_rating: the data have no ratings (of a table, name the column with --rating)")
    for option in ("since", "until", "timestamps"):
        if getattr(settings, option) and "time" not in columns:
            shown = "from" if option == "since" else option
            raise UserError(f"--{shown}: the data have no times (of a table, name the column with --time)")


def _encoded(frame: pl.DataFrame) -> tuple[Clicks, np.ndarray]:
    """The clicks with users and items numbered in the order of their first row, and why they are dropped."""
    time = frame["time"].fill_null(0).to_numpy() if "time" in frame.columns else None
    reason = frame["reason"].to_numpy()
    frame = frame.select("user", "item")
    user, user_names = _numbered(frame.drop_in_place("user"))
    item, item_names = _numbered(frame.drop_in_place("item"))
    return Clicks(user, item, time, user_names, item_names), reason


def _numbered(names: pl.Series) -> tuple[np.ndarray, pl.Series]:
    distinct = names.unique(maintain_order=True).drop_nulls()
    codes = names.to_physical().fill_null(0).to_numpy()
    used = distinct.to_physical().to_numpy()
    texts = distinct.cast(pl.String).str.normalize("NFC")  # as runs read names
    composed = texts.unique(maintain_order=True)
    row_of = {text: row for row, text in enumerate(composed)} if len(composed) < len(texts) else None
    number_of = np.zeros(int(max(codes.max(initial=0), used.max(initial=0))) + 1, np.int32)
    number_of[used] = np.arange(len(used)) if row_of is None else [row_of[text] for text in texts]
    return number_of[codes], composed


def filter_clicks(clicks: Clicks, settings: PrepareSettings, items_kept: np.ndarray, content: str) -> None:
    """Apply the options in their order; the clicks are sorted by user and time then.

    Args:
        clicks: the clicks, changed in place.
        settings: the options.
        items_kept: bool ``[items]``, whether an item has what ``--require`` names.
        content: what that is, in words.

    Raises:
        UserError: no click is left.
    """
    _keep_window(clicks, settings)
    if not items_kept.all():
        clicks.keep(items_kept[clicks.item], f"clicks on items without {content}")
    clicks.sort()
    if settings.repeats == "merge":
        clicks.keep(_is_first(clicks), "repeated clicks of a user on an item, after the first")
    if settings.k_core is not None:
        _keep_core(clicks, settings.k_core)
    if settings.min_item_clicks > 1:
        counts = clicks.item_counts()
        clicks.keep(
            counts[clicks.item] >= settings.min_item_clicks,
            f"items with fewer than {settings.min_item_clicks} clicks",
        )
    if settings.min_user_clicks > 1:
        counts = clicks.user_counts()
        clicks.keep(
            counts[clicks.user] >= settings.min_user_clicks,
            f"users with fewer than {settings.min_user_clicks} clicks",
        )
    if settings.last is not None:
        clicks.keep(_from_end(clicks) < settings.last, f"clicks before the last {settings.last} of a user")
    if settings.users is not None:
        drawn = drawn_users(clicks, settings.users, settings.seed)
        clicks.keep(
            drawn[clicks.user], f"users that were not drawn ({settings.users:,}, seed {settings.seed})"
        )


def _keep_window(clicks: Clicks, settings: PrepareSettings) -> None:
    for option, text in (("from", settings.since), ("until", settings.until)):
        if text is None:
            continue
        assert clicks.time is not None
        unit = unit_of(clicks.time)
        if _YEAR.fullmatch(text) and np.median(clicks.time) > _SECONDS_TO_1973 * unit:
            raise UserError(f"--{option} {text}: is it a year? Write {text}-01-01")
        limit = moment(text, option) * unit
        if option == "from":
            clicks.keep(clicks.time >= limit, f"clicks before {text}")
        else:
            clicks.keep(clicks.time < limit, f"clicks at or after {text}")


def _is_first(clicks: Clicks) -> np.ndarray:
    """Whether each click is the user's first on its item."""
    pairs = clicks.user.astype(np.int64) * len(clicks.item_names) + clicks.item
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    first = np.ones(len(pairs), bool)
    first[order[1:]] = pairs[1:] != pairs[:-1]
    return first


def _keep_core(clicks: Clicks, least: int) -> None:
    """Drop users and items with fewer clicks than ``least`` until all have as many."""
    rounds = 0
    kept = np.ones(len(clicks), bool)
    sides = ((clicks.item, len(clicks.item_names)), (clicks.user, len(clicks.user_names)))
    dropped = True
    while dropped:
        dropped = False
        for codes, size in sides:
            few = kept & (np.bincount(codes[kept], minlength=size)[codes] < least)
            if few.any():
                kept &= ~few
                dropped = True
        rounds += dropped
    clicks.keep(kept, f"users and items outside the {least}-core ({rounds} rounds)")


def _from_end(clicks: Clicks) -> np.ndarray:
    """How many clicks of the same user follow each click."""
    stops = np.cumsum(clicks.user_counts())
    after: np.ndarray = stops[clicks.user] - 1 - np.arange(len(clicks))
    return after


def drawn_users(clicks: Clicks, number: int, seed: int) -> np.ndarray:
    """Whether each user is drawn, bool ``[users]``: those with clicks and the smallest hashes.

    The hash of a user depends on the seed and the name alone, so that equal users are drawn on every machine
    and with every version of the libraries.
    """
    drawn = np.zeros(len(clicks.user_names), bool)
    present = np.flatnonzero(clicks.user_counts())
    key = seed.to_bytes(8, "little")

    def hash_of(name: str) -> int:
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=key).digest(), "little")

    hashes = np.fromiter(map(hash_of, clicks.user_names.gather(present)), np.uint64, len(present))
    drawn[present[np.argsort(hashes, kind="stable")[:number]]] = True
    return drawn
