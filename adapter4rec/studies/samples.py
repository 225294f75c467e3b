"""Studies with ``--sample``: the rows of the study with the data and models of the quickstart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.plan import Study, StudyRow, StudySource, known_part, target_settings
from adapter4rec.studies.quickstarts import QUICKSTARTS

_KEPT = ("objective", "user_share", "seed")
"""Settings of a source model that are taken from the study."""


def prepare(modality: str) -> None:
    """Generate the sample data and download or create the small backbone, unless they exist."""
    plan = QUICKSTARTS[modality]
    plan.prepare(plan)


def on_sample(study: Study) -> Study:
    """The study on the sample data, with the backbone and source models of the quickstart."""
    plan = QUICKSTARTS[study.modality]
    target = plan.data("target") | {"backbone": plan.backbone}
    source = plan.data("source") | {"backbone": plan.backbone}
    cls = target_settings(study.modality)
    return replace(
        study,
        title=f"{study.title}, on generated sample data",
        rows=[replace(row, settings=_settings(cls, study, row, target)) for row in study.rows],
        sources={name: _source(one, plan.source_stages, source) for name, one in study.sources.items()},
    )


def _settings(
    cls: type[RunSettings], study: Study, row: StudyRow, sample: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a row with the sample data."""
    return {**row.settings, **known_part(cls, {**sample, **study.sample}, row.settings.get("method"))}


def _source(
    source: StudySource, stages: Mapping[str, Mapping[str, Any]], sample: Mapping[str, Any]
) -> StudySource:
    kept = {name: value for name, value in source.stages[-1].items() if name in _KEPT}
    return StudySource([{**stage, **sample, **kept} for stage in stages.values()])
