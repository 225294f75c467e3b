"""What is computed from the ranks of users' targets: HR@k, NDCG@k, MRR, and the same for groups of users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.evaluation.ranking import MISSED
from adapter4rec.utils.files import whole_file

RANKS_FILE = "test_ranks.csv.gz"

Groups = dict[str, list[dict[str, float | int | str]]]
"""By what users are grouped by, the groups in order: name, number of users, metrics."""

_HISTORY = (("up to 4", 4), ("5 to 9", 9), ("10 and more", MISSED))
_POPULARITY = (("new", 0), ("rare", 4), ("middle", 19), ("popular", MISSED))


def metrics_of(ranks: np.ndarray, ks: Iterable[int] = (10,)) -> dict[str, float]:
    """HR@k and NDCG@k for each k, and MRR, in per cent, means over users.

    There is one relevant item a user, so the ideal DCG is 1. A target that is masked out counts 0.

    Args:
        ranks: int ``[users]``, from 1.
        ks: lengths of the lists.
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
    """The users of a test, one entry each.

    Attributes:
        users: their names.
        history: int, how many clicks the model read, L at most.
        targets: names of the items that were to be found.
        target_clicks: int, clicks on these in the training sequences of the users that were trained on.
        ranks: int, from 1; ``MISSED`` where the target is masked out.
    """

    users: Sequence[str]
    history: np.ndarray
    targets: Sequence[str]
    target_clicks: np.ndarray
    ranks: np.ndarray

    def groups(self, ks: Iterable[int] = (10,)) -> Groups:
        """Metrics by length of the history and by popularity of the target; empty groups are left out."""
        ks = tuple(ks)
        return {
            "history length": self._grouped(self.history, _HISTORY, ks),
            "target item": self._grouped(self.target_clicks, _POPULARITY, ks),
        }

    def _grouped(
        self, values: np.ndarray, limits: Iterable[tuple[str, int]], ks: tuple[int, ...]
    ) -> list[dict[str, float | int | str]]:
        """One entry a group, each with the values above the limit before and up to its own."""
        groups, before = [], -1
        for name, limit in limits:
            inside = (values > before) & (values <= limit)
            before = limit
            if inside.any():
                found = metrics_of(self.ranks[inside], ks)
                groups.append({"group": name, "users": int(inside.sum()), **found})
        return groups

    def write(self, path: Path) -> None:
        """Write a compressed CSV with a line a user, which ``pandas.read_csv`` reads as it is."""
        import pandas as pd

        table = pd.DataFrame(
            {
                "user": self.users,
                "history": self.history,
                "target": self.targets,
                "target_clicks": self.target_clicks,
                "rank": self.ranks,
            }
        )
        with whole_file(path) as aside:
            # Without the time of writing in the file, equal ranks are equal files.
            table.to_csv(aside, index=False, compression={"method": "gzip", "mtime": 0})
