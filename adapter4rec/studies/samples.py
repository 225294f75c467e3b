"""Studies on the generated sample with a small model: what the quickstart prepares, in the study's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.plan import Study, StudyRow, StudySource, known_part, target_settings
from adapter4rec.studies.quickstarts import QUICKSTARTS

_KEPT = ("objective", "user_share", "seed")
"""What a source model's training keeps of the study's page."""


def prepare(modality: str) -> None:
    """Make the sample and fetch, or make, the small backbone, where they are not there yet."""
    plan = QUICKSTARTS[modality]
    plan.prepare(plan)


def on_sample(study: Study) -> Study:
    """The study with the sample's data, backbone and source models."""
    plan = QUICKSTARTS[study.modality]
    here = plan.data("target") | {"backbone": plan.backbone}
    there = plan.data("source") | {"backbone": plan.backbone}
    cls = target_settings(study.modality)
    return replace(
        study,
        title=f"{study.title}, on the generated sample",
        rows=[replace(row, settings=_settings(cls, study, row, here)) for row in study.rows],
        sources={name: _source(one, plan.source_stages, there) for name, one in study.sources.items()},
    )


def _settings(
    cls: type[RunSettings], study: Study, row: StudyRow, sample: Mapping[str, Any]
) -> dict[str, Any]:
    """A row's settings with the sample's data."""
    return {**row.settings, **known_part(cls, {**sample, **study.sample}, row.settings.get("method"))}


def _source(
    source: StudySource, stages: Mapping[str, Mapping[str, Any]], sample: Mapping[str, Any]
) -> StudySource:
    kept = {name: value for name, value in source.stages[-1].items() if name in _KEPT}
    return StudySource([{**stage, **sample, **kept} for stage in stages.values()])
