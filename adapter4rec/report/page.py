"""The page of a study: a single self-contained HTML file, from the template ``page.html.j2``."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from adapter4rec.report.results import Section, Study
from adapter4rec.report.tables import Table
from adapter4rec.utils.settings import as_argument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_A_RUN = ("seed", "run_folder")
"""Settings that differ between the runs of a row; shown in the commands only."""


@dataclass(frozen=True)
class ReportPart:
    """A section with its tables, and its plots by file name."""

    section: Section
    comparison: Table
    groups: Sequence[Table]
    metrics: Table
    plots: Mapping[str, Figure]


def page_html(study: Study, parts: Sequence[ReportPart], warnings: Sequence[str]) -> str:
    """Render the page."""
    loader = PackageLoader("adapter4rec.report", "")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = _data_uri
    states = study.runs["state"].str.replace(r"[(:].*", "", regex=True).str.strip().value_counts()
    finished = study.runs[study.runs["finished"]].drop_duplicates("key")["record"]
    hardware = [record["hardware"] | record["versions"] for record in finished]
    data = [{**(record.get("domain") or {}), "hash": record["data"]} for record in finished]
    shared, own = _settings(study.runs)
    return environment.get_template("page.html.j2").render(
        study=study,
        parts=parts,
        warnings=warnings,
        created=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}",
        progress=", ".join(f"{count} {state}" for state, count in states.items()),
        failures=study.runs[study.runs["state"].str.startswith("failed")].to_dict("records"),
        shared=shared,
        own=own,
        environment={"Environments": _counted(hardware), "Data": _counted(data)},
    )


def _data_uri(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode()}"


def _settings(runs: pd.DataFrame) -> tuple[dict[str, str], dict[tuple[str, str], dict[str, str]]]:
    """Settings that all rows have in common, and the others by section and row."""
    runs = runs.dropna(subset="record")
    settings = [
        {name: as_argument(value) for name, value in record["settings"].items() if name not in _OF_A_RUN}
        for record in runs["record"]
    ]
    values = pd.DataFrame(settings, runs.index)
    shared = [name for name in values if values[name].nunique(dropna=False) == 1]
    rest = values.drop(columns=shared).groupby([runs["section"], runs["row"]])
    own = {
        place: {name: " / ".join(of_row[name].dropna().unique()) for name in of_row.dropna(axis=1, how="all")}
        for place, of_row in rest
    }
    return {name: values[name].iloc[0] for name in shared}, own


def _counted(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The distinct lines and their number of runs."""
    return pd.DataFrame(lines).value_counts(sort=False, dropna=False).rename("runs").reset_index()
