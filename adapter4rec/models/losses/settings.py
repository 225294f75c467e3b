"""Settings of the losses."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.models.registry import LOSSES
from adapter4rec.utils.settings import Settings, option

LOGQ = ("standard", "corrected", "none")


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """Loss."""

    loss: str = option("bce", "training loss", choices=LOSSES)
    negatives: int | None = option(
        None,
        "number of negatives sampled uniformly: per target for bce (default 1) and gbce (64), shared by the "
        "batch for mixed and sampled_softmax (512)",
        least=1,
    )
    temperature: float = option(1.0, "softmax losses: the scores are divided by this", above=0)
    cosine: bool = option(False, "score with cosine similarity instead of the dot product")
    logq: str = option(
        "standard",
        "in_batch and mixed: logQ correction of the scores for the popularity of the items; standard "
        "corrects targets and negatives, corrected the negatives only",
        choices=LOGQ,
    )
    gbce_t: float = option(0.75, "gbce: calibration t, from 0 (bce) to 1", least=0, most=1)
