"""Learning rate schedules."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate_factor(step: int, total: int, warmup: int, schedule: str) -> float:
    """Factor of the learning rates in a step.

    It rises linearly during the warm-up. Then it is constant, or decays to 0 after the last step.

    Args:
        step: number of the step in the run, from 0.
        total: number of steps of the run.
        warmup: number of warm-up steps.
        schedule: ``constant``, ``linear`` or ``cosine``.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]
