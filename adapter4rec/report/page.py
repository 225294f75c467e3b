"""The page of a study: a single self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from string import Template

from adapter4rec.report import wording
from adapter4rec.report.comparing import Analysis, comparison_table
from adapter4rec.report.facts import StudySettings, data_table, environment_table
from adapter4rec.report.groups import group_tables, metrics_table
from adapter4rec.report.markup import command_html, folded, pairs_html, paragraphs, table_html
from adapter4rec.report.results import ReportedRun, ReportedStudy, ResultRow, Section

_HERE = Path(__file__).parent


def page_html(analysis: Analysis, pictures: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Render the page.

    Args:
        analysis: the study.
        pictures: caption and SVG of each plot, by section name.
    """
    study = analysis.study
    settings = StudySettings.of(study)
    return Template(_part("page.html")).substitute(
        title=escape(study.plan.title),
        style=_part("page.css").strip(),
        script=_part("page.js").strip(),
        about=paragraphs(study.plan.about),
        made=escape(_made(study)),
        warnings="".join(f'<p class="warning">{escape(one)}</p>' for one in analysis.paper.warnings),
        command=command_html(study.plan.command),
        contents=_contents(study),
        sections="\n".join(
            _section(analysis, section, number, settings, pictures[section.name])
            for number, section in enumerate(study.sections, 1)
        ),
        failures=_failures(study),
        settings=pairs_html(settings.shared.items()) or "<p>No runs yet.</p>",
        environment=_environment(study),
    )


def _part(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _made(study: ReportedStudy) -> str:
    runs = [run for row in study.rows for run in row.runs]
    finished, failed = sum(run.finished for run in runs), sum(run.failed for run in runs)
    rest = len(runs) - finished - failed
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    parts = [f"{finished} of {wording.plural(len(runs), 'run')} finished"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{rest} not run"] if rest else []
    return f"Created {now}; {', '.join(parts)}."


def _contents(study: ReportedStudy) -> str:
    """Table of contents."""
    links = [(f"section-{number}", one.name) for number, one in enumerate(study.sections, 1) if one.name]
    links += (
        [("failures", "Failed runs")] if any(run.failed for row in study.rows for run in row.runs) else []
    )
    links += [("settings", "Settings"), ("environment", "Environment")]
    items = "".join(f'<li><a href="#{target}">{escape(name)}</a></li>' for target, name in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _section(
    analysis: Analysis,
    section: Section,
    number: int,
    settings: StudySettings,
    pictures: Sequence[tuple[str, str]],
) -> str:
    name = section.name or "Results"
    figures = "\n".join(
        f"<figure><div>{svg}</div><figcaption>{escape(caption)}</figcaption></figure>"
        for caption, svg in pictures
    )
    groups = "\n".join(
        f"<h3>{escape(table.title)}</h3>\n{table_html(table, f'{name}: {table.title}')}"
        for table in group_tables(analysis, section)
    )
    metrics = metrics_table(analysis, section)
    parts = [
        f'<section id="section-{number}">\n<h2>{escape(name)}</h2>',
        table_html(comparison_table(analysis, section), name),
        f'<div class="pictures">{figures}</div>' if figures else "",
        groups,
        folded(metrics.title, table_html(metrics, f"{name}: {metrics.title}")) if metrics.columns else "",
        folded(
            "Settings and commands of each row",
            "\n".join(_row(row, settings) for row in section.rows),
        ),
        "</section>",
    ]
    return "\n".join(filter(None, parts))


def _row(row: ResultRow, settings: StudySettings) -> str:
    values = settings.of_rows.get(row, {})
    pairs = pairs_html((name, " / ".join(several)) for name, several in values.items())
    runs = "\n".join(
        f"<p>Seed {run.planned.seed}: {escape(run.state)}</p>{command_html(run.command)}" for run in row.runs
    )
    return f"<h3>{escape(row.name)}</h3>\n{pairs}{runs}\n"


def _failures(study: ReportedStudy) -> str:
    failed = [(row, run) for row in study.rows for run in row.runs if run.failed]
    if not failed:
        return ""
    inner = "\n".join(_failure(row, run) for row, run in failed)
    return f'<section id="failures">\n<h2>Failed runs</h2>\n{inner}\n</section>'


def _failure(row: ResultRow, run: ReportedRun) -> str:
    where = f"{row.section}: {row.name}" if row.section else row.name
    return (
        f"<h3>{escape(where)}, seed {run.planned.seed}: exit code {run.record['exit_code']}</h3>\n"
        f"<pre>{escape(str(run.record['message']))}</pre>\n" + folded("Command", command_html(run.command))
    )


def _environment(study: ReportedStudy) -> str:
    if not study.records:
        return "<p>No finished runs.</p>"
    tables = (environment_table(study), data_table(study))
    return "\n".join(f"<h3>{table.title}</h3>\n{table_html(table, table.title)}" for table in tables)
