"""Significance tests between rows: Student's paired t-test over users, two-sided, with Holm's correction.

The paired values are a user's NDCG@k with the row and with the reference row, each averaged over the seeds
that both rows have. The p-values of a section are corrected for multiple comparisons (Holm, "A Simple
Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

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
        with Holm's correction; and ``trouble``, the reason why there is no test. Rows without a finished run
        or a reference are omitted.
    """
    from scipy.stats import ttest_rel

    user_gains.cache_clear()  # a run may have been repeated since the last report
    found: dict[Any, dict[str, Any]] = {}
    for row, reference in references[references.index.isin(finished["row"])].dropna().items():
        try:
            gains = paired_gains(finished, str(row), reference, k)
            first, second = gains["row"], gains["reference"]
            p = 1.0 if first.equals(second) else ttest_rel(first, second).pvalue
            found[row] = {"users": len(gains), "p": p}
        except NotComparableError as reason:
            found[row] = {"trouble": str(reason)}
    tests = pd.DataFrame.from_dict(found, orient="index").reindex(columns=["users", "p", "trouble"])
    return tests.assign(corrected=holm(tests["p"].astype(float)))


def paired_gains(finished: pd.DataFrame, row: str, reference: str, k: int) -> pd.DataFrame:
    """NDCG@k by user, in the columns ``row`` and ``reference``: means over the seeds that both have.

    Raises:
        NotComparableError: they have no seeds or not the same users in common, or ranks are missing.
    """
    mine, theirs = (finished[finished["row"] == name] for name in (row, reference))
    seeds = mine.merge(theirs, on="seed", suffixes=("", "_reference"))
    if seeds.empty:
        raise NotComparableError(f"{row} and {reference} have no finished seeds in common")
    first = pd.concat([user_gains(folder, k) for folder in seeds["folder"]], axis=1)
    second = pd.concat([user_gains(folder, k) for folder in seeds["folder_reference"]], axis=1)
    if pd.concat([first, second], axis=1).isna().to_numpy().any():
        raise NotComparableError(f"{row} and {reference} were tested on different users")
    return pd.DataFrame({"row": first.mean(axis=1), "reference": second.mean(axis=1)})


def holm(p_values: pd.Series[float]) -> pd.Series[float]:
    """P-values with Holm's correction; NaN where there is none."""
    ascending = p_values.dropna().sort_values(kind="stable")
    tests_left = np.arange(len(ascending), 0, -1)
    return (ascending * tests_left).clip(upper=1).cummax().reindex(p_values.index)


@lru_cache(maxsize=16)
def user_gains(folder: str, k: int) -> pd.Series[float]:
    """NDCG@k by user, between 0 and 1, from the test ranks in a run folder.

    Raises:
        NotComparableError: the file is missing or damaged.
    """
    kinds: dict[str, Any] = {"user": str, "rank": "int64"}
    path = Path(folder) / RANKS_FILE
    try:
        require_regular(path)
        ranks = pd.read_csv(path, usecols=list(kinds), dtype=kinds, keep_default_na=False, index_col="user")
    except (OSError, EOFError, ValueError, zlib.error, UserError) as error:
        state = "not found" if isinstance(error, FileNotFoundError) else "is damaged"
        raise NotComparableError(f"{path.parent.name}: {RANKS_FILE} {state}") from None
    return pd.Series(ndcg_gains(ranks["rank"].to_numpy(), k), ranks.index)
