"""Progress messages of a run for terminal and log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def epoch_line(record: Mapping[str, Any], ks: Iterable[int]) -> str:
    """Summary of an epoch: loss, validation metrics in per cent, if any, time, speed, input wait."""
    parts = (
        f"epoch {record['epoch']}: loss {record['loss']:.4f}",
        *_metrics(record, ks),
        f"{record['seconds']:.1f} s",
        f"{record['sequences_per_second']:.1f} seq/s",
        f"input wait {record['input_wait']:.1f} %",
    )
    return "  ".join(parts)


def result_line(epoch: int, metrics: Mapping[str, float], ks: Iterable[int], *more: str) -> str:
    """Summary of a test: the tested epoch, its metrics in per cent, and further texts."""
    return "  ".join((f"test of epoch {epoch}:", *_metrics(metrics, ks), *more))


def _metrics(values: Mapping[str, Any], ks: Iterable[int]) -> list[str]:
    keys = [f"{name}@{k}" for k in ks for name in ("HR", "NDCG")]
    return [f"{key} {values[key]:.4f} %" for key in keys if key in values]
