"""Training sequences, validation targets and test targets: leave-one-out, or a global cut in time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.utils.errors import UserError

VALIDATION, TEST = "validation", "test"
_SMALLEST = 1e-9
"""Added before rounding down, since 0.29 * 100 is less than 29."""


@dataclass(frozen=True)
class SequenceSplit:
    """Where the users' sequences are split; positions in ``Interactions.clicks``.

    The validation target is the first click after the training sequence, and the test target the click at
    ``test_stops``. With a cut in time, a user may lack either.

    Attributes:
        train_stops: int64 ``[users]``, ends of the training sequences.
        test_stops: int64 ``[users]``, ends of the histories before the test.
        has_validation: bool ``[users]``, users with a validation target and a click before it.
        has_test: bool ``[users]``, users with a test target and a click before it.
        times: starts of validation and test; None for leave-one-out.
    """

    train_stops: np.ndarray
    test_stops: np.ndarray
    has_validation: np.ndarray
    has_test: np.ndarray
    times: tuple[int, int] | None = None

    def stops(self, split: str) -> np.ndarray:
        """Ends of the histories before the targets of ``validation`` or ``test``, int64 ``[users]``."""
        return {VALIDATION: self.train_stops, TEST: self.test_stops}[split]

    def ranked(self, split: str) -> np.ndarray:
        """Indices of the users with a target in ``validation`` or ``test``, int64, ascending."""
        return np.flatnonzero({VALIDATION: self.has_validation, TEST: self.has_test}[split])


@dataclass(frozen=True)
class KeptClicks:
    """The clicks of each user that a run keeps, counted from the user's first click.

    Attributes:
        starts: int64 ``[users]``, first kept click.
        stops: int64 ``[users]``, end of the kept clicks.
        train_stops: int64 ``[users]``, end of the training sequence.
        test_stops: int64 ``[users]``, end of the history before the test.
        times: starts of validation and test; None for leave-one-out.
    """

    starts: np.ndarray
    stops: np.ndarray
    train_stops: np.ndarray
    test_stops: np.ndarray
    times: tuple[int, int] | None = None

    def split(self, offsets: np.ndarray) -> SequenceSplit:
        """The split of the kept sequences.

        Args:
            offsets: int64 ``[users + 1]``, where the kept sequence of each user starts in ``clicks``.
        """
        first = offsets[:-1] - self.starts
        in_validation = self.train_stops < np.minimum(self.test_stops, self.stops)
        return SequenceSplit(
            first + self.train_stops,
            first + self.test_stops,
            in_validation & (self.train_stops > 0),
            (self.test_stops < self.stops) & (self.test_stops > 0),
            self.times,
        )


def leave_one_out(lengths: np.ndarray, max_seq_len: int | None = None) -> KeptClicks:
    """The last L + 3 clicks of each user; the last two are the targets of validation and test.

    Args:
        lengths: int64 ``[users]``, number of clicks of each user.
        max_seq_len: L; None to keep all clicks.
    """
    most = lengths if max_seq_len is None else np.minimum(lengths, max_seq_len + 3)
    return KeptClicks(lengths - most, lengths, lengths - 2, lengths - 1)


def cut_in_time(
    lengths: np.ndarray, timestamps: np.ndarray | None, cut: tuple[float, float], max_seq_len: int, path: Path
) -> KeptClicks:
    """A global cut: training before the start of validation, the first click after it and after that of test.

    Of each user the last L + 1 clicks before validation are kept, and all later ones up to the test target.

    Args:
        lengths: int64 ``[users]``, number of clicks of each user.
        timestamps: int64 ``[clicks]``, the times of their clicks; not decreasing for a user.
        cut: starts of validation and test: a time, or, below 1, the fraction of clicks before it.
        max_seq_len: L.
        path: the file of the users, for messages.

    Raises:
        UserError: there are no timestamps, test does not start after validation, no user can be trained on,
            or none has a target of validation or of test.
    """
    if timestamps is None:
        raise UserError(
            f"--split time: {path} has no timestamps; add a third column with an integer for each click, or "
            "use --split leave_one_out"
        )
    validation_from, test_from = (_time_of(start, timestamps) for start in cut)
    shown = f"--split time: validation from {validation_from}, test from {test_from}"
    if test_from <= validation_from:
        raise UserError(f"{shown}: test must start after validation (--validation_from, --test_from)")
    train_stops, test_stops = (
        _clicks_before(time, lengths, timestamps) for time in (validation_from, test_from)
    )
    kept = KeptClicks(
        np.maximum(train_stops - (max_seq_len + 1), 0),
        np.minimum(test_stops + 1, lengths),
        train_stops,
        test_stops,
        (validation_from, test_from),
    )
    found = kept.split(np.concatenate([[0], np.cumsum(kept.stops - kept.starts)]))
    for what, users in (
        ("two clicks before validation, so there is nothing to train on", train_stops >= 2),
        ("a validation target: a first click in this time, after another click", found.has_validation),
        ("a test target: a first click in this time, after another click", found.has_test),
    ):
        if not users.any():
            times = f"the clicks in {path} are from {timestamps.min()} to {timestamps.max()}"
            raise UserError(f"{shown}: no user has {what}; {times} (--validation_from, --test_from)")
    return kept


def _time_of(start: float, timestamps: np.ndarray) -> int:
    if start >= 1:
        return int(start)
    at = min(int(start * len(timestamps) + _SMALLEST), len(timestamps) - 1)
    return int(np.partition(timestamps, at)[at])


def _clicks_before(time: int, lengths: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Number of clicks of each user before a time, int64 ``[users]``."""
    before = np.concatenate([[0], np.cumsum(timestamps < time)])
    ends = np.cumsum(lengths)
    counts: np.ndarray = before[ends] - before[ends - lengths]
    return counts
