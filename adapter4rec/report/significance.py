"""Comparison of rows with their reference: a test over users, and an interval over users and seeds.

The test is Student's paired t-test, two-sided. The paired values are a user's NDCG@k with the row and with
the reference row, each averaged over the seeds that both rows have. The p-values of a section are corrected
for multiple comparisons (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
Journal of Statistics 6, 1979). The interval is that of the difference in HR@k (:func:`interval`).
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapter4rec.evaluation.metrics import RANKS_FILE, ndcg_gains
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import require_regular

NAME = "paired t-test over users, two-sided, Holm-corrected"
LEVEL = 0.05
CONFIDENCE = 0.95
_ROUNDING = 0.01
"""Difference in points of a HR@k of the ledger from that of the ranks, if both are of the same training."""


class NotComparableError(Exception):
    """A row cannot be tested against its reference; the message is the reason."""


def compare(finished: pd.DataFrame, references: pd.Series[str], k: int) -> pd.DataFrame:
    """Test each row of a section against its reference, by NDCG@k.

    Args:
        finished: finished runs of the section, with ``row``, ``seed`` and ``folder``.
        references: name of the reference by row; NaN for a row without one.
        k: evaluation cutoff.

    Returns:
        By row: ``users``, the number of pairs; ``p``, 1 if all pairs are equal; ``corrected``, the p-value
        with Holm's correction; ``difference``, that of the mean HR@k to the reference in percentage points,
        over the seeds that both have, with the ends ``low`` and ``high`` of its interval; and ``trouble``,
        the reason why there is no comparison. Rows without a finished run or a reference are omitted.
    """
    from scipy.stats import ttest_rel

    read_ranks.cache_clear()  # a run may have been repeated since the last report
    found: dict[Any, dict[str, Any]] = {}
    for row, reference in references[references.index.isin(finished["row"])].dropna().items():
        try:
            mine, theirs = paired_ranks(finished, str(row), reference, k)
        except NotComparableError as reason:
            found[row] = {"trouble": str(reason)}
            continue
        first, second = (ndcg_gains(ranks, k).mean(axis=1) for ranks in (mine, theirs))
        p = 1.0 if np.array_equal(first, second) else ttest_rel(first, second).pvalue
        hits = 100.0 * (mine <= k) - 100.0 * (theirs <= k)
        low, high = interval(hits)
        found[row] = {"users": len(mine), "p": p, "difference": hits.mean(), "low": low, "high": high}
    columns = ["users", "p", "difference", "low", "high", "trouble"]
    tests = pd.DataFrame.from_dict(found, orient="index").reindex(columns=columns)
    return tests.assign(corrected=holm(tests["p"].astype(float)))


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean difference over users and seeds, both drawn at random.

    The variance of the mean is that over users of their means over the seeds, plus that over seeds of their
    means over the users. Their sum is too large, since both contain what users and seeds vary together (Owen,
    "The Pigeonhole Bootstrap", Annals of Applied Statistics 1, 2007): where seeds hardly differ, the interval
    is wider than needed. The quantiles are those of Student's t with the degrees of freedom of Satterthwaite
    (Biometrics Bulletin 2, 1946): three seeds that differ give a wide interval. With one seed, it is over
    users only.

    Args:
        differences: ``[users, seeds]``.

    Returns:
        Lower and upper end; NaN if there is a single user.
    """
    from scipy.stats import t

    counts = [count for count in differences.shape if count > 1]
    if differences.shape[0] == 1:
        return math.nan, math.nan
    means = [differences.mean(axis=1), differences.mean(axis=0)][: len(counts)]
    parts = np.array([np.var(mean, ddof=1) / len(mean) for mean in means])
    if not (variance := parts.sum()):
        return float(differences.mean()), float(differences.mean())
    freedom = variance**2 / (parts**2 / (np.array(counts) - 1)).sum()
    low, high = t.interval(CONFIDENCE, freedom, differences.mean(), math.sqrt(variance))
    return float(low), float(high)


def paired_ranks(finished: pd.DataFrame, row: str, reference: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks with a row and with its reference, each ``[users, seeds]``, of the seeds that both have.

    Raises:
        NotComparableError: they have no seeds or not the same users in common, or ranks are missing, or those
            of a training that was continued since its HR@k was recorded.
    """
    mine, theirs = (finished[finished["row"] == name] for name in (row, reference))
    seeds = mine.merge(theirs, on="seed", suffixes=("", "_reference"))
    if seeds.empty:
        raise NotComparableError(f"{row} and {reference} have no finished seeds in common")
    folders = [*seeds["folder"], *seeds["folder_reference"]]
    recorded = [*seeds[f"test.HR@{k}"], *seeds[f"test.HR@{k}_reference"]]
    of_runs = [read_ranks(folder) for folder in folders]
    for folder, own, rate in zip(folders, of_runs, recorded, strict=True):
        if abs(100 * float((own <= k).mean()) - rate) > _ROUNDING:
            raise NotComparableError(
                f"{Path(folder).name}: {RANKS_FILE} is of another training; run it again"
            )
    ranks = pd.concat(of_runs, axis=1)
    if ranks.isna().to_numpy().any():
        raise NotComparableError(f"{row} and {reference} were tested on different users or targets")
    first, second = np.hsplit(ranks.to_numpy(), 2)
    return first, second


def holm(p_values: pd.Series[float]) -> pd.Series[float]:
    """P-values with Holm's correction; NaN where there is none."""
    ascending = p_values.dropna().sort_values(kind="stable")
    tests_left = np.arange(len(ascending), 0, -1)
    return (ascending * tests_left).clip(upper=1).cummax().reindex(p_values.index)


@lru_cache(maxsize=16)
def read_ranks(folder: str) -> pd.Series[int]:
    """Rank of the test item by user and, where the file names it, test item; from 1, from a run folder.

    Raises:
        NotComparableError: the file is missing or damaged.
    """
    kinds: dict[Any, Any] = {"user": str, "target": str, "rank": "int64"}
    path = Path(folder) / RANKS_FILE
    try:
        require_regular(path)
        ranks = pd.read_csv(path, usecols=kinds.__contains__, dtype=kinds, keep_default_na=False)
        if not {"user", "rank"} <= set(ranks):
            raise ValueError
    except (OSError, EOFError, ValueError, zlib.error, UserError) as error:
        state = "not found" if isinstance(error, FileNotFoundError) else "is damaged"
        raise NotComparableError(f"{path.parent.name}: {RANKS_FILE} {state}") from None
    return ranks.set_index(ranks["user"] + "\t" + ranks["target"] if "target" in ranks else "user")["rank"]
