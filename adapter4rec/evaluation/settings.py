"""Settings of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.data.settings import DomainSettings, LoaderSettings
from adapter4rec.utils.settings import PRECISIONS, Settings, option


@dataclass(frozen=True, kw_only=True)
class MetricSettings(Settings):
    """Evaluation."""

    k: tuple[int, ...] = option((10,), "cutoffs k of HR, NDCG and coverage", least=1, runtime=True)
    exclude_history: bool = option(
        True, "leave the items of the history out of the candidates; a target among them counts as a miss"
    )
    evaluation_precision: str = option(
        "fp32", "number format in which items are encoded for validation and test", choices=PRECISIONS
    )

    @property
    def ks(self) -> tuple[int, ...]:
        """Cutoffs of the metrics. Always includes 10, because HR@10 selects the best epoch."""
        return tuple(sorted({10, *self.k}))


@dataclass(frozen=True, kw_only=True)
class RankingSettings(MetricSettings, LoaderSettings):
    """How a catalogue is encoded and ranked."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(RankingSettings, DomainSettings):
    """All settings that evaluation uses."""
