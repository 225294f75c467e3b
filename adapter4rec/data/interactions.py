"""Users and items of a domain: reading, filtering and splitting, with flat arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from adapter4rec.data.lines import read_line_blocks
from adapter4rec.data.settings import ATTRIBUTES
from adapter4rec.data.splitting import TEST, VALIDATION, SequenceSplit, cut_in_time, leave_one_out
from adapter4rec.data.users import read_users, require_distinct
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import composed, first_fault, title_fault, utf8_fault

_WARNING_SHARE = 0.2
"""Share of dropped users or clicks above which a warning is printed."""


@dataclass(frozen=True)
class ItemTable:
    """The lines of ``items.tsv``.

    Attributes:
        path: path of the file.
        names: item names, in file order.
        texts: for each requested attribute, one text per item, in file order.
    """

    path: Path
    names: list[bytes]
    texts: dict[str, list[str]]


@dataclass(frozen=True)
class Interactions:
    """User sequences of a domain after filtering; item ids are 1…N in the order of ``items.tsv``.

    Attributes:
        clicks: int32 ``[clicks]``, concatenated sequences of all users.
        offsets: int64 ``[users + 1]``; the sequence of user u is ``clicks[offsets[u]:offsets[u + 1]]``.
        user_names: user names, in file order.
        item_names: ``item_names[i - 1]`` is the name of item i.
        item_rows: int64 ``[N]``, row of each item in the :class:`ItemTable`.
        max_seq_len: L, maximum input length of the user encoder.
        dropped_users: number of users with fewer than ``min_seq_len`` clicks.
        dropped_clicks: number of clicks of these users.
        cut_clicks: number of clicks of kept users that are not kept (see :func:`read_interactions`).
        left_out_items: number of items in the file without content.
        left_out_clicks: number of clicks on these items.
        identity: SHA-256 of the sequences and names; independent of file names.
        timestamps: int64 ``[clicks]``, the time of each click; None if ``users.tsv`` has none.
        time_split: a split at a global cut in time; None for leave-one-out.
    """

    clicks: np.ndarray
    offsets: np.ndarray
    user_names: list[str]
    item_names: list[str]
    item_rows: np.ndarray
    max_seq_len: int
    dropped_users: int
    identity: str
    dropped_clicks: int = 0
    cut_clicks: int = 0
    left_out_items: int = 0
    left_out_clicks: int = 0
    timestamps: np.ndarray | None = None
    time_split: SequenceSplit | None = None

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """Number of items N; all are ranked in evaluation."""
        return len(self.item_names)

    @cached_property
    def split(self) -> SequenceSplit:
        """Training sequences and targets; with leave-one-out, the two last clicks are the targets."""
        return self.time_split or leave_one_out(np.diff(self.offsets)).split(self.offsets)

    def trainable_users(self) -> np.ndarray:
        """Indices of the users with two training clicks or more, int64, ascending; all with leave-one-out."""
        return np.flatnonzero(self.split.train_stops - self.offsets[:-1] >= 2)

    def padded(self, users: np.ndarray, stops: np.ndarray, width: int) -> np.ndarray:
        """The last ``width`` clicks of each user before a position in ``clicks``, padded with 0 on the left.

        Args:
            users: indices of users, int ``[users]``.
            stops: int64 ``[users]``, a position of each, such as those of ``split.train_stops``.
            width: number of clicks.

        Returns:
            int64 ``[users, width]``.
        """
        at = stops[:, None] - width + np.arange(width)
        real = at >= self.offsets[users, None]
        return np.where(real, self.clicks[np.maximum(at, 0)], 0).astype(np.int64)

    def training_clicks(self, users: np.ndarray | None = None) -> np.ndarray:
        """Number of clicks on each item in training sequences, int64 ``[N]``.

        Args:
            users: indices of the users to count; by default :meth:`trainable_users`.
        """
        return np.bincount(self.clicks[self._trained(users)], minlength=self.n_items + 1)[1:]

    def training_pairs(self, users: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """User index and item id of each click in training sequences, both int ``[clicks]``.

        Args:
            users: indices of the users; by default :meth:`trainable_users`.
        """
        trained = self._trained(users)
        return np.repeat(np.arange(self.n_users), np.diff(self.offsets))[trained], self.clicks[trained]

    def _trained(self, users: np.ndarray | None) -> np.ndarray:
        """Which clicks are in the training sequences of some users, bool ``[clicks]``."""
        counted = np.zeros(self.n_users, bool)
        counted[self.trainable_users() if users is None else users] = True
        lengths = np.diff(self.offsets)
        is_train: np.ndarray = np.repeat(counted, lengths)
        is_train &= np.arange(len(self.clicks)) < np.repeat(self.split.train_stops, lengths)
        return is_train

    def describe(self) -> str:
        """One-line summary for the log."""
        dropped = f"{self.dropped_users:,} users"
        if self.left_out_items:
            dropped += f", {self.left_out_clicks:,} clicks on {self.left_out_items:,} items without content"
        return (
            f"{self.n_users:,} users, {self.n_items:,} items, {len(self.clicks):,} clicks kept "
            f"({dropped} dropped), data {self.identity[:12]}{self._describe_times()}"
        )

    def _describe_times(self) -> str:
        if self.split.times is None:
            return ""
        validation_from, test_from = self.split.times
        trained, validated, tested = map(
            len, (self.trainable_users(), self.split.ranked(VALIDATION), self.split.ranked(TEST))
        )
        return (
            f"; validation from {validation_from}, test from {test_from}: {trained:,} users to train on, "
            f"{validated:,} with a validation target, {tested:,} with a test target"
        )

    def warning(self) -> str | None:
        """A warning with the causes, if more than 20 % of the users or clicks were dropped."""
        users = self.n_users + self.dropped_users
        lost = self.dropped_clicks + self.cut_clicks + self.left_out_clicks
        clicks = len(self.clicks) + lost
        if self.dropped_users <= _WARNING_SHARE * users and lost <= _WARNING_SHARE * clicks:
            return None
        ends = "--max_seq_len + 3 of a user"
        if self.split.times is not None:
            ends = "--max_seq_len + 1 of training or after the test target"
        causes = {
            f"{self.dropped_users:,} of {users:,} users with {self.dropped_clicks:,} of {clicks:,} clicks "
            "(fewer than --min_seq_len)": self.dropped_users,
            f"{self.cut_clicks:,} clicks before the last {ends}": self.cut_clicks,
            f"{self.left_out_clicks:,} clicks on items without an image in --images": self.left_out_clicks,
        }
        shown = ", ".join(cause for cause, count in causes.items() if count)
        return f"warning: more than 20 % of the users or clicks were dropped: {shown}"


def read_items(
    path: Path,
    attributes: tuple[str, ...] = (),
    *,
    allow_empty_titles: bool = False,
    encoding: str = "utf-8",
) -> ItemTable:
    """Read ``name[<TAB>title[<TAB>abstract[<TAB>body]]]`` lines.

    Args:
        path: the file. All lines must have the same number of columns.
        attributes: text columns to read (see :data:`ATTRIBUTES`).
        allow_empty_titles: accept items without a title.
        encoding: encoding of the file.

    Raises:
        UserError: missing file, no items, inconsistent or missing columns, empty title, invalid or duplicate
            name, or text in another encoding.
    """
    names: list[bytes] = []
    texts: dict[str, list[str]] = {attribute: [] for attribute in attributes}
    columns = 0
    for first_line, lines in read_line_blocks(path, encoding):
        known = len(names)
        for number, line in enumerate(lines, first_line):
            fields = line.split(b"\t")
            columns = columns or _checked_columns(len(fields), attributes, path)
            if len(fields) != columns:
                raise UserError(
                    f"{path}:{number}: {len(fields)} columns, but line 1 has {columns} "
                    "(columns are separated by single tabs)"
                )
            title = fields[1].decode("utf-8", "replace") if columns > 1 else "-"
            if fault_of_title := title_fault(title, allow_empty=allow_empty_titles):
                raise UserError(f"{path}:{number}: {fault_of_title}; add one, or use --allow_empty_titles")
            names.append(composed(fields[0]))
            for attribute in attributes:
                field = fields[1 + ATTRIBUTES.index(attribute)]
                try:
                    texts[attribute].append(field.decode("utf-8"))
                except UnicodeDecodeError:
                    raise UserError(f"{path}:{number}: {utf8_fault(field)}") from None
        if fault := first_fault(names[known:], "item"):
            is_csv = columns == 1 and any(sign in names[known + fault[0]] for sign in (b";", b",", b"|"))
            hint = "; is this a CSV? adapter4rec prepare table reads those" if is_csv else ""
            raise UserError(f"{path}:{first_line + fault[0]}: {fault[1]}{hint}")
    if not names:
        raise UserError(f"{path}: no items in this file")
    require_distinct(names, path, "item")
    return ItemTable(path, names, texts)


def _checked_columns(columns: int, attributes: tuple[str, ...], path: Path) -> int:
    if columns > 1 + len(ATTRIBUTES):
        raise UserError(f"{path}:1: {columns} columns; expected at most 4: name, title, abstract, body")
    for attribute in attributes:
        if columns < 2 + ATTRIBUTES.index(attribute):
            raise UserError(
                f"{path}:1: no {attribute} column: the file has {columns} of the columns name, "
                f"{', '.join(ATTRIBUTES)}; choose other attributes with --attributes"
            )
    return columns


def read_interactions(
    users_path: Path,
    items: ItemTable,
    *,
    min_seq_len: int,
    max_seq_len: int,
    without: Collection[bytes] = (),
    encoding: str = "utf-8",
    cut: tuple[float, float] | None = None,
) -> Interactions:
    """Read ``name<TAB>item item …[<TAB>time time …]`` lines, filter users and items, and assign item ids.

    Users with fewer than ``min_seq_len`` clicks (including repeated ones) are dropped. Of the others, the
    last ``max_seq_len + 3`` clicks are kept, or, with a cut in time, those of :func:`cut_in_time`. Items
    without a kept click are dropped.

    Args:
        users_path: path of ``users.tsv``.
        items: the items.
        min_seq_len: minimum clicks of a user.
        max_seq_len: L, maximum input length of the user encoder.
        without: items without content; clicks on them are removed first.
        encoding: encoding of ``users.tsv``.
        cut: starts of validation and test for :func:`cut_in_time`; None for leave-one-out.

    Raises:
        UserError: missing file, invalid line or name, or no user or fewer than two items after filtering.
    """
    users = read_users(users_path, items.names, items.path, without=without, encoding=encoding)
    names, lengths = users.names, users.lengths
    kept = np.flatnonzero(lengths >= min_seq_len)
    if not len(kept):
        raise UserError(
            f"{users_path}: no users after filtering: none of {len(names):,} has at least {min_seq_len} "
            "clicks (--min_seq_len)"
        )
    if cut is None:
        parts = leave_one_out(lengths[kept], max_seq_len)
    else:
        is_kept, times = np.repeat(lengths >= min_seq_len, lengths), users.timestamps
        parts = cut_in_time(
            lengths[kept], None if times is None else times[is_kept], cut, max_seq_len, users_path
        )
    kept_lengths = parts.stops - parts.starts
    offsets = np.concatenate([[0], np.cumsum(kept_lengths)])
    first_click = (np.cumsum(lengths) - lengths)[kept] + parts.starts
    at = np.arange(offsets[-1]) + np.repeat(first_click - offsets[:-1], kept_lengths)
    rows = users.clicks[at]

    has_clicks = np.zeros(len(items.names), bool)
    has_clicks[rows] = True
    item_rows = np.flatnonzero(has_clicks)
    if len(item_rows) < 2:
        raise UserError(f"{users_path}: only one item after filtering; a ranking needs at least two")
    number_of_row = np.cumsum(has_clicks, dtype=np.int32)
    item_names = [items.names[row] for row in item_rows]
    user_names = [names[user] for user in kept]
    clicks = number_of_row[rows]
    return Interactions(
        clicks=clicks,
        offsets=offsets,
        user_names=[name.decode("utf-8") for name in user_names],
        item_names=[name.decode("utf-8") for name in item_names],
        item_rows=item_rows,
        time_split=None if cut is None else parts.split(offsets),
        timestamps=None if users.timestamps is None else users.timestamps[at],
        max_seq_len=max_seq_len,
        dropped_users=len(names) - len(kept),
        dropped_clicks=int(lengths.sum() - lengths[kept].sum()),
        cut_clicks=int((lengths[kept] - kept_lengths).sum()),
        left_out_items=len(without),
        left_out_clicks=users.left_out_clicks,
        identity=_identity(
            clicks, offsets, user_names, item_names, None if cut is None else parts.split(offsets)
        ),
    )


def _identity(
    clicks: np.ndarray,
    offsets: np.ndarray,
    users: list[bytes],
    items: list[bytes],
    split: SequenceSplit | None,
) -> str:
    digest = hashlib.sha256()
    parts = [clicks.tobytes(), offsets.tobytes(), b"\n".join(users), b"\n".join(items)]
    if split is not None:
        parts += [split.train_stops.tobytes(), split.test_stops.tobytes()]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
