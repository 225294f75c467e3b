"""Significance tests between rows: Student's paired t-test over users, two-sided, with Holm's correction.

The paired values are a user's NDCG@k with the row and with the reference row, each averaged over the seeds
that both rows have. The p-values of a section are corrected for multiple comparisons (Holm, "A Simple
Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adapter4rec.evaluation.metrics import RANKS_FILE, ndcg_gains
from adapter4rec.report.results import ResultRow, Section

NAME = "paired t-test over users, two-sided, Holm-corrected"
LEVEL = 0.05


class NotComparableError(Exception):
    """A row cannot be tested against its reference; the message is the reason."""


@dataclass(frozen=True)
class Comparison:
    """The significance test of a row against its reference.

    Attributes:
        users: number of paired users; 0 if there is no test.
        seeds: seeds that both rows have; users' values are means over them.
        p: p-value; None if there is no test.
        corrected: p-value with Holm's correction; None if there is no test.
        trouble: reason why there is no test; empty if there is one.
    """

    users: int = 0
    seeds: tuple[int, ...] = ()
    p: float | None = None
    corrected: float | None = None
    trouble: str = ""

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.corrected is not None and self.corrected < LEVEL


@dataclass(frozen=True)
class UserGains:
    """NDCG@k of each user of a run.

    Attributes:
        users: user names, sorted, ``[U]``.
        gains: values between 0 and 1, float64 ``[U]``.
    """

    users: np.ndarray
    gains: np.ndarray


def compare(section: Section, k: int) -> dict[ResultRow, Comparison]:
    """Compare each finished row with its reference, by NDCG@k. Rows without a reference are left out."""
    found, references = {}, {}
    for row in section.rows:
        reference = section.reference_of(row)
        if reference is None or not row.finished:
            continue
        try:
            found[row] = _compared(row, reference, k, references)
        except NotComparableError as reason:
            found[row] = Comparison(trouble=str(reason))
    return _corrected(found)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values with Holm's correction, in the order given."""
    ascending = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(ascending):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected


def _corrected(comparisons: Mapping[ResultRow, Comparison]) -> dict[ResultRow, Comparison]:
    tested = [row for row, one in comparisons.items() if one.p is not None]
    values = holm([comparisons[row].p for row in tested])
    corrected = dict(zip(tested, values, strict=True))
    return {row: replace(one, corrected=corrected.get(row)) for row, one in comparisons.items()}


def _compared(
    row: ResultRow,
    reference: ResultRow,
    k: int,
    references: dict[tuple[ResultRow, tuple[int, ...]], UserGains],
) -> Comparison:
    """Compare two rows. ``references`` caches the gains of reference rows, which many rows share."""
    seeds = sorted({run.planned.seed for run in row.finished} & {r.planned.seed for r in reference.finished})
    if not seeds:
        raise NotComparableError(f"{row.name} and {reference.name} have no finished seeds in common")
    mine, place = _over_seeds(row, seeds, k), (reference, tuple(seeds))
    if place not in references:
        references[place] = _over_seeds(reference, seeds, k)
    theirs = references[place]
    if not np.array_equal(mine.users, theirs.users):
        raise NotComparableError(f"{row.name} and {reference.name} were tested on different users")
    p = paired_p_value(mine.gains, theirs.gains)
    return Comparison(len(mine.users), tuple(seeds), p)


def paired_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """P-value of Student's paired t-test, two-sided; 1 if all pairs are equal.

    Args:
        first: float ``[U]``.
        second: float ``[U]``.

    Raises:
        NotComparableError: there are fewer than two pairs.
    """
    from scipy.stats import ttest_rel

    if len(first) < 2:
        raise NotComparableError("fewer than two users")
    if np.array_equal(first, second):
        return 1.0
    return float(ttest_rel(first, second).pvalue)


def _over_seeds(row: ResultRow, seeds: Sequence[int], k: int) -> UserGains:
    folders = {run.planned.seed: run.folder for run in row.finished}
    found = [user_gains(folders[seed] / RANKS_FILE, k) for seed in seeds]
    if any(not np.array_equal(one.users, found[0].users) for one in found):
        raise NotComparableError(f"the seeds of {row.name} were tested on different users")
    return UserGains(found[0].users, np.mean([one.gains for one in found], axis=0))


def user_gains(path: Path, k: int) -> UserGains:
    """NDCG@k of each user from the file of test ranks of a run.

    Raises:
        NotComparableError: the file is missing or damaged.
    """
    import pandas as pd

    kinds = {"user": str, "rank": np.int64}
    try:
        table = pd.read_csv(path, usecols=list(kinds), dtype=kinds, keep_default_na=False)
    except FileNotFoundError:
        raise NotComparableError(f"{path.parent.name}: {RANKS_FILE} not found") from None
    except (OSError, EOFError, ValueError, zlib.error):
        raise NotComparableError(f"{path.parent.name}: {RANKS_FILE} is damaged") from None
    table = table.sort_values("user", kind="stable")
    return UserGains(table["user"].to_numpy(), ndcg_gains(table["rank"].to_numpy(), k))
