"""Progress messages of a run for terminal and log, wrapped at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter4rec.checkpoints.settings import SourceSettings, TargetSettings
from adapter4rec.runs.settings import RunSettings

if TYPE_CHECKING:
    from adapter4rec.models.parameters import ParameterCounts

_WIDTH = 80
_LARGE_SHARE = 25
"""Share of the parameters, in per cent, above which adapters are no longer small."""
_HARD_SPACE = "\N{NO-BREAK SPACE}"


def opening_lines(settings: RunSettings, counts: ParameterCounts) -> Iterator[str]:
    """What is trained, and what is odd about it.

    Raises:
        UserError: the source model is missing or damaged.
    """
    yield f"trained parameters: {counts.trained:,} of {counts.total:,} ({counts.share:.2f} %)"
    if (start := _start_of(settings)) is not None:
        from adapter4rec.checkpoints.source_models import differing_settings, read_source_settings

        for line in differing_settings(read_source_settings(start), settings.plain()):
            yield f"warning: the source model was trained with {line}"
    if not isinstance(settings, TargetSettings):
        return
    if settings.method == "head" and not settings.needs_source:
        yield "no source model: head and user encoder start from initial weights"
    if settings.adapter is not None and counts.share > _LARGE_SHARE:
        yield (
            f"warning: with this adapter, {counts.share:.0f} % of all parameters are trained; its widths or "
            "ranks may be too large for this backbone"
        )


def _start_of(settings: RunSettings) -> Path | None:
    """The source model that a run starts from."""
    if isinstance(settings, TargetSettings):
        return settings.source_checkpoint if settings.needs_source else None
    return settings.start_from if isinstance(settings, SourceSettings) else None


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
