"""Metrics from the ranks of users' targets: HR@k, NDCG@k and MRR, for all users and for groups of users."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.utils.files import atomic_file

MISSED = np.iinfo(np.int32).max
"""The rank of a target that is masked out."""

RANKS_FILE = "test_ranks.csv.gz"

Group = dict[str, float | int | str]
Groups = dict[str, list[Group]]
"""For each grouping criterion a list of groups: name, number of users, metrics."""

_HISTORY = (("up to 4", 4), ("5 to 9", 9), ("10 and more", MISSED))
_POPULARITY = (("new", 0), ("rare", 4), ("middle", 19), ("popular", MISSED))


def metrics_of(ranks: np.ndarray, ks: Iterable[int] = (10,)) -> dict[str, float]:
    """HR@k and NDCG@k for each k, and MRR; means over users in per cent.

    Each user has one relevant item, so the ideal DCG is 1. A masked target counts as 0 in all metrics.

    Args:
        ranks: int ``[users]``, from 1.
        ks: evaluation cutoffs k.
    """
    found: dict[str, float] = {}
    for k in ks:
        hits, gains = float((ranks <= k).mean()), float(ndcg_gains(ranks, k).mean())
        found |= {f"HR@{k}": 100 * hits, f"NDCG@{k}": 100 * gains}
    reciprocal = np.where(ranks == MISSED, 0.0, 1.0 / ranks)
    return found | {"MRR": 100 * float(reciprocal.mean())}


def ndcg_gains(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each user, between 0 and 1, float64 ``[users]``, from ranks from 1."""
    return np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0)


@dataclass(frozen=True)
class RankedUsers:
    """Per-user results of a test; all attributes have one entry per user.

    Attributes:
        users: names of the users.
        history: int, number of clicks in the model's input, at most L.
        targets: names of the target items.
        target_clicks: int, clicks on the target in the training sequences of the trained users.
        ranks: int, rank of the target, from 1; ``MISSED`` if it is masked.
    """

    users: Sequence[str]
    history: np.ndarray
    targets: Sequence[str]
    target_clicks: np.ndarray
    ranks: np.ndarray

    def groups(self, ks: Iterable[int] = (10,)) -> Groups:
        """Metrics by history length and by popularity of the target; empty groups are omitted."""
        ks = tuple(ks)
        criteria = {
            "history length": (self.history, _HISTORY),
            "target item": (self.target_clicks, _POPULARITY),
        }
        groups: Groups = {criterion: [] for criterion in criteria}
        for criterion, (values, limits) in criteria.items():
            before = -1
            for name, limit in limits:  # a group: values above the previous limit and up to its own
                inside = (values > before) & (values <= limit)
                before = limit
                if inside.any():
                    found = metrics_of(self.ranks[inside], ks)
                    groups[criterion].append({"group": name, "users": int(inside.sum()), **found})
        return groups

    def write(self, path: Path) -> None:
        """Write a compressed CSV with one line per user, which ``pandas.read_csv`` can read."""
        import pandas as pd

        columns = {"user": self.users, "history": self.history, "target": self.targets}
        table = pd.DataFrame(columns | {"target_clicks": self.target_clicks, "rank": self.ranks})
        with atomic_file(path) as aside:
            # Without a timestamp, equal ranks give identical files.
            aside.write_bytes(gzip.compress(table.to_csv(index=False, lineterminator="\n").encode(), mtime=0))
