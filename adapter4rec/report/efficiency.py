"""TPME, a combined measure of training time, trained parameters and GPU memory.

From IISAN (Fu et al., "IISAN: Efficiently Adapting Multimodal Representation for Sequential Recommendation
with Decoupled PEFT", SIGIR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapter4rec.report.results import ResultRow, Section

TIME_WEIGHT, PARAMETER_WEIGHT, MEMORY_WEIGHT = 0.45, 0.10, 0.45


@dataclass(frozen=True)
class Cost:
    """Cost of a training method.

    Attributes:
        seconds: seconds per epoch.
        parameters: number of trained parameters.
        memory: peak memory, in any unit.
    """

    seconds: float
    parameters: float
    memory: float


def tpme(costs: Sequence[Cost]) -> list[float]:
    """TPME of each of several methods, between 0 and 100; lower is better.

    ``100 (0.45 T + 0.10 P + 0.45 M)``, where T, P and M are seconds, parameters and memory, min-max
    normalised over the compared methods (0 if all are equal).
    """
    parts = zip(
        _normalised([cost.seconds for cost in costs]),
        _normalised([cost.parameters for cost in costs]),
        _normalised([cost.memory for cost in costs]),
        strict=True,
    )
    return [
        100 * (TIME_WEIGHT * time + PARAMETER_WEIGHT * parameters + MEMORY_WEIGHT * memory)
        for time, parameters, memory in parts
    ]


def _normalised(values: list[float]) -> list[float]:
    least, most = min(values, default=0), max(values, default=0)
    return [(value - least) / (most - least) if most > least else 0.0 for value in values]


def cost_of(row: ResultRow) -> Cost | None:
    """Cost of a row; None if no parameters are trained or no run has finished."""
    seconds, parameters, memory = row.seconds_per_epoch, row.trained_parameters, row.peak_memory
    if seconds is None or parameters is None or memory is None or parameters.mean == 0:
        return None
    return Cost(seconds.mean, parameters.mean, memory.mean)


def section_tpme(section: Section) -> dict[ResultRow, float]:
    """TPME of the rows of a section, relative to the rows they are compared with. Not all rows have one."""
    found: dict[ResultRow, float] = {}
    for rows in section.compared:
        costs = {row: cost for row in rows if (cost := cost_of(row)) is not None}
        if len(costs) > 1:
            found |= dict(zip(costs, tpme(list(costs.values())), strict=True))
    return found
