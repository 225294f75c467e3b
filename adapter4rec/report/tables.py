"""Tables of a section: formatted values with marks and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from adapter4rec.report.columns import Column, comparison_columns, group_columns, metric_columns
from adapter4rec.report.paper import PaperFigures
from adapter4rec.report.results import Section, Study
from adapter4rec.report.significance import LEVEL, NAME
from adapter4rec.report.wording import plural, span

_NOTHING = "-"


@dataclass(frozen=True)
class Table:
    """A table with a line for each row of a section and a column for each of ``columns``.

    Attributes:
        title: title of the table.
        columns: the columns.
        values: numbers, NaN where there is none.
        texts: formatted values.
        marks: ``BEST``, ``SECOND`` or NaN.
        notes: notes below the table.
    """

    title: str
    columns: Sequence[Column]
    values: pd.DataFrame
    texts: pd.DataFrame
    marks: pd.DataFrame
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, title: str, columns: Sequence[Column], section: Section, notes: Sequence[str] = ()) -> Table:
        """Compute and format the columns. The first empty cell of a row without a result gives its state."""
        found = {column: column.of(section) for column in columns}
        found = {one: rows for one, rows in found.items() if not one.optional or rows["mean"].notna().any()}
        values = pd.DataFrame({one.name: rows["mean"] for one, rows in found.items()})
        marks = pd.DataFrame({one.name: rows["mark"] for one, rows in found.items()})
        texts = pd.DataFrame(_NOTHING, values.index, values.columns, dtype=object)
        for column, rows in found.items():
            for row, line in rows[rows["mean"].notna()].iterrows():
                texts.loc[row, column.name] = column.text(line)
        for row, state in section.rows["state"].items():
            if state != "finished" and found:
                texts.loc[row, (texts.loc[row] == _NOTHING).idxmax()] = state
        return cls(title, list(found), values, texts, marks, notes)

    def lines(self) -> Iterator[tuple[str, Iterator[tuple[str, float, float]]]]:
        """Name, and text, value and mark of each cell, of each line."""
        for name in self.texts.index:
            yield name, zip(self.texts.loc[name], self.values.loc[name], self.marks.loc[name], strict=True)


def comparison_table(study: Study, section: Section, paper: PaperFigures) -> Table:
    """Accuracy and cost of a section's rows."""
    return Table.of(section.name, comparison_columns(study, paper), section, _notes(study, section))


def metrics_table(study: Study, section: Section) -> Table:
    """All test metrics."""
    return Table.of("All test metrics", metric_columns(study), section)


def group_tables(study: Study, section: Section) -> list[Table]:
    """One table per kind of group and headline metric, with one column per group."""
    kinds = dict.fromkeys(name.split(".")[1] for name in study.runs if name.startswith("groups."))
    return [
        Table.of(f"{metric} (%) by {kind}", group_columns(section, kind, metric), section)
        for kind in kinds
        for metric in study.headline[:2]
        if study.plan.get("groups")
    ]


def _notes(study: Study, section: Section) -> list[str]:
    rows, reference = section.rows, study.plan["reference"]
    among = "Among rows at the same scale, best" if rows["group"].nunique() > 1 else "Best"
    notes = [
        "Mean ± sample standard deviation over the finished seeds, if there are several.",
        f"{among} values are bold, second-best values underlined.",
    ]
    if reference not in {*rows["name"], *rows["series"]}:
        notes.append(f"No comparison: there is no row {reference}.")
    if rows["reference"].notna().any():
        notes.append(f"Relative: difference of the mean {study.headline[0]} to that of {reference}.")
    if len(users := rows["users"].dropna()):
        notes.append(
            f"p: {NAME}, of per-user NDCG@{study.cutoff} against {reference}; n = {span(users)} users, "
            f"{plural(len(users), 'comparison')}. * p < {LEVEL}. The test does not cover the variance "
            "between training runs, since users' values are means over seeds; see the deviations."
        )
    notes += [f"No test: {reason}." for reason in rows["trouble"].dropna().unique()]
    failed = section.runs[section.runs["state"].str.startswith("failed")].groupby("row", sort=False).size()
    if len(failed):
        counts = [f"{row} {count} of {rows.loc[row, 'planned']}" for row, count in failed.items()]
        notes.append(f"Failed runs: {'; '.join(counts)}.")
    if rows["tpme"].notna().any():
        notes.append(
            "TPME: 0.45 seconds per epoch + 0.10 trained parameters + 0.45 peak memory, each min-max "
            "normalised over the compared rows that train parameters; lower is better (Fu et al., SIGIR "
            "2024)."
        )
    return notes
