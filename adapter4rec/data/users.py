"""Reading ``users.tsv``: names, histories and, as an optional third column, timestamps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from adapter4rec.data.lines import read_line_blocks
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import composed, first_fault, utf8_fault

_UNKNOWN, _LEFT_OUT, _END = -1, -2, -3
_END_OF_USER = b"\0"


@dataclass(frozen=True)
class UserTable:
    """The lines of ``users.tsv``.

    Attributes:
        names: user names, in file order.
        clicks: int32 ``[clicks]``, the clicks of all users as rows of the item table.
        lengths: int64 ``[users]``, number of clicks of each user.
        timestamps: int64 ``[clicks]``, the time of each click; None if the file has none.
        left_out_clicks: number of clicks on items without content, which are removed.
    """

    names: list[bytes]
    clicks: np.ndarray
    lengths: np.ndarray
    timestamps: np.ndarray | None
    left_out_clicks: int


def read_users(
    path: Path,
    items: Sequence[bytes],
    items_path: Path,
    *,
    without: Collection[bytes] = (),
    encoding: str = "utf-8",
) -> UserTable:
    """Read ``name<TAB>item item …[<TAB>time time …]`` lines.

    Args:
        path: the file. All lines must have the same number of columns.
        items: item names; a click is an index into them.
        items_path: the file that they were read from, for messages.
        without: items without content; clicks on them are removed.
        encoding: encoding of the file.

    Raises:
        UserError: missing file, no users, invalid line, name or timestamp, or a click on an unknown item.
    """
    row_of = {name: row for row, name in enumerate(items)} | dict.fromkeys(without, _LEFT_OUT)
    row_of[_END_OF_USER] = _END
    names: list[bytes] = []
    clicks, lengths, timestamps = [], [], []
    columns = unknown = left_out = 0
    first_unknown = ""
    for first_line, lines in read_line_blocks(path, encoding):
        columns = columns or (3 if lines[0].count(b"\t") == 2 else 2)
        users, histories, times = _columns(lines, first_line, path, columns)
        names += users
        # One split of a whole block: a list per user takes a third more time.
        words = (b" \0 ".join(histories) + b" \0").split()
        rows = np.fromiter(map(row_of.get, words, repeat(_UNKNOWN)), np.int32, len(words))
        ends = np.flatnonzero(rows == _END)
        missing = np.flatnonzero(rows == _UNKNOWN)
        if len(missing) and not unknown:
            where = f"{path}:{first_line + int(np.searchsorted(ends, missing[0]))}"
            first_unknown = _unknown_item(words[missing[0]], where)
        unknown += len(missing)
        known = rows >= 0
        left_out += len(rows) - len(missing) - len(ends) - int(known.sum())
        clicks.append(rows[known])
        lengths.append(np.diff(np.cumsum(known)[ends], prepend=0))
        if columns == 3:
            counts = np.diff(ends, prepend=-1) - 1
            timestamps.append(_timestamps(times, counts, first_line, path)[known[rows != _END]])
    if unknown:
        hint = "" if sum(map(len, clicks)) else "; are users and items of the same domain, and not swapped?"
        raise UserError(
            f"{first_unknown} is not in {items_path}; {unknown:,} clicks are on unknown items{hint}"
        )
    if not names:
        raise UserError(f"{path}: no users in this file")
    require_distinct(names, path, "user")
    in_order = np.concatenate(timestamps) if timestamps else None
    return UserTable(names, np.concatenate(clicks), np.concatenate(lengths), in_order, left_out)


def _columns(
    lines: list[bytes], first_line: int, path: Path, columns: int
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Names, histories and timestamps (none without a third column) of some lines."""
    names, histories, times = [], [], []
    for number, line in enumerate(lines, first_line):
        fields = composed(line).split(b"\t")
        if len(fields) != columns or not fields[0] or _END_OF_USER in fields[1]:
            third = ", a tab, and the timestamps of the clicks" if columns == 3 else ""
            raise UserError(
                f"{path}:{number}: expected a user name, a tab, and item names separated by spaces{third}; "
                f"found {len(fields)} columns"
            )
        names.append(fields[0])
        histories.append(fields[1])
        if columns == 3:
            times.append(fields[2])
    if fault := first_fault(names, "user"):
        raise UserError(f"{path}:{first_line + fault[0]}: {fault[1]}")
    return names, histories, times


def _timestamps(columns: list[bytes], counts: np.ndarray, first_line: int, path: Path) -> np.ndarray:
    """The timestamps of some users, int64 ``[clicks]``.

    Args:
        columns: the third column of each user.
        counts: number of clicks of each user, int64 ``[users]``.
        first_line: number of the first user's line.
        path: the file.

    Raises:
        UserError: a timestamp is not an integer, their number is not that of the clicks, or they decrease.
    """
    words = [column.split() for column in columns]
    for user in np.flatnonzero(np.fromiter(map(len, words), np.int64, len(words)) != counts):
        raise UserError(
            f"{path}:{first_line + user}: {counts[user]:,} clicks, but {len(words[user]):,} timestamps in "
            "the third of 3 columns, which has one integer for each click, separated by spaces"
        )
    try:
        times = np.fromiter(map(int, chain.from_iterable(words)), np.int64, counts.sum())
    except (ValueError, OverflowError):
        line, word = next(
            (line, word)
            for line, some in enumerate(words, first_line)
            for word in some
            if not _is_timestamp(word)
        )
        shown = word.decode("utf-8", "replace")
        raise UserError(
            f"{path}:{line}: the timestamp {shown!r} in the third of 3 columns is not an "
            "integer of 64 bits; write, for example, seconds since 1970"
        ) from None
    starts = np.zeros(len(times) + 1, bool)
    starts[np.cumsum(counts)] = True
    for click in np.flatnonzero((np.diff(times) < 0) & ~starts[1:-1]):
        line = first_line + int(np.searchsorted(np.cumsum(counts), click, side="right"))
        raise UserError(
            f"{path}:{line}: the timestamp {times[click + 1]} follows {times[click]}; clicks "
            "are listed oldest first, so timestamps must not decrease"
        )
    return times


def _is_timestamp(word: bytes) -> bool:
    try:
        return -(2**63) <= int(word) < 2**63
    except ValueError:
        return False


def _unknown_item(word: bytes, where: str) -> str:
    if fault := utf8_fault(word):
        raise UserError(f"{where}: {fault}")
    return f"{where}: item {word.decode('utf-8')!r}"


def require_distinct(names: list[bytes], path: Path, what: str) -> None:
    """Check that no name occurs twice in a file with one name per line.

    Raises:
        UserError: one does; the message names both lines.
    """
    if len(set(names)) == len(names):
        return
    lines: dict[bytes, int] = {}
    for line, name in enumerate(names, 1):
        if (first := lines.setdefault(name, line)) != line:
            shown = repr(name.decode("utf-8"))
            raise UserError(f"{path}:{line}: duplicate {what} {shown} (first in line {first})")
