"""Progress messages of a run for terminal and log, wrapped at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

_WIDTH = 80
_HARD_SPACE = "\N{NO-BREAK SPACE}"


def epoch_line(record: Mapping[str, Any], ks: Iterable[int]) -> str:
    """Summary of an epoch: loss, validation metrics in per cent, time, speed, time waiting for input."""
    return _wrapped(
        f"epoch {record['epoch']}: loss {record['loss']:.4f}",
        *(_metrics(record, ks) if "HR@10" in record else ()),
        f"{record['seconds']:.1f} s",
        f"{record['sequences_per_second']:.1f} seq/s",
        f"input wait {record['input_wait']:.1f} %",
    )


def result_line(epoch: int, metrics: Mapping[str, float], ks: Iterable[int], *more: str) -> str:
    """Summary of a test: the tested epoch, its metrics in per cent, and further texts."""
    return _wrapped(f"test of epoch {epoch}:", *_metrics(metrics, ks), *more)


def _metrics(values: Mapping[str, Any], ks: Iterable[int]) -> list[str]:
    return [f"{name}@{k} {values[f'{name}@{k}']:.4f} %" for k in ks for name in ("HR", "NDCG")]


def _wrapped(*parts: str) -> str:
    line = "  ".join(part.replace(" ", _HARD_SPACE) for part in parts)
    return textwrap.fill(line, _WIDTH, subsequent_indent="  ").replace(_HARD_SPACE, " ")
