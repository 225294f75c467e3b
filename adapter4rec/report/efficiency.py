"""TPME, a combined measure of training time, trained parameters and memory.

From IISAN (Fu et al., "IISAN: Efficiently Adapting Multimodal Representation for Sequential Recommendation
with Decoupled PEFT", SIGIR 2024).
"""

from __future__ import annotations

import pandas as pd

WEIGHTS = (0.45, 0.10, 0.45)


def tpme(costs: pd.DataFrame, group: pd.Series[str]) -> pd.Series[float]:
    """TPME of each row, between 0 and 100; lower is better. NaN for a row that is alone in its group.

    ``100 (0.45 T + 0.10 P + 0.45 M)``, where T, P and M are seconds, parameters and memory, min-max
    normalised over the compared rows (0 if all are equal).

    Args:
        costs: three columns: seconds per epoch, trained parameters and peak memory, in any unit.
        group: rows of the same group are compared.
    """
    grouped = costs.groupby(group)
    least, most = grouped.transform("min"), grouped.transform("max")
    normalised = (costs - least) / (most - least).where(most > least, 1)
    found = 100 * normalised.mul(list(WEIGHTS)).sum(axis=1)
    return found.where(grouped[costs.columns[0]].transform("size") > 1)
