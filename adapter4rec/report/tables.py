"""Tables of a section, and their columns. A new column is one entry in :func:`comparison_columns`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from adapter4rec.report.paper import PaperFigures
from adapter4rec.report.results import MEMORY, SECONDS, TRAINED, Section, Study
from adapter4rec.report.significance import LEVEL, NAME
from adapter4rec.report.wording import fixed, p_value, plural, seconds, span

_NOTHING = "-"
BEST, SECOND = 1, 2


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    Attributes:
        name: header, with the unit.
        value: the values, by row; or the key of a number in the ledger, which is averaged over each row's
            runs (:meth:`Section.over_seeds`).
        text: formats a row: its value is ``mean``, and the other columns are those of ``over_seeds`` and
            :attr:`Section.rows`.
        better: which direction is better.
        places: decimal places to which values are compared to mark the best and the second best; None if the
            column is not marked.
        cost: whether it is a cost of training, which has a LaTeX table of its own.
        optional: whether the column is omitted if no row has a value.
    """

    name: str
    value: str | pd.Series[Any]
    text: Callable[[pd.Series[Any]], str]
    better: Literal["higher", "lower"] = "higher"
    places: int | None = None
    cost: bool = False
    optional: bool = False

    def of(self, section: Section) -> pd.DataFrame:
        """The rows of a section with their values (or NaN), and ``mark``: BEST, SECOND or NaN."""
        if isinstance(self.value, str):
            rows = section.rows.join(section.over_seeds(self.value))
        else:
            rows = section.rows.assign(mean=self.value)
        grouped = rows["mean"].round(self.places or 0).groupby(rows["group"])
        ranks = grouped.rank("dense", ascending=self.better == "lower")
        marked = (self.places is not None) & (ranks <= SECOND) & (grouped.transform("count") > 1)
        return rows.assign(mark=ranks.where(marked))


def comparison_columns(study: Study, section: Section, paper: PaperFigures) -> list[Column]:
    """The columns of the comparison tables: accuracy, then cost."""
    rows, relative = section.rows, section.relative(f"test.{study.headline[0]}")
    accuracy = [Column(study.scale_label or "scale", rows["scale"], mean_text("{:g}".format), optional=True)]
    for metric in study.headline:
        text = _starred if metric == f"NDCG@{study.cutoff}" else _with_deviation
        accuracy.append(Column(f"{metric} (%)", f"test.{metric}", text, places=2))
        accuracy += _paper_columns(section, paper, metric, f"test.{metric}", 2)
    return [
        *accuracy,
        Column("relative (%)", relative, mean_text(fixed(1, "+"))),
        Column("p", rows["corrected"], mean_text(p_value), "lower"),
        Column("trained parameters", TRAINED, mean_text(fixed(0)), "lower", cost=True),
        *_paper_columns(section, paper, "trained parameters", TRAINED, 0),
        Column("share (%)", "parameters.share", mean_text(fixed(2)), "lower", cost=True),
        Column("s / epoch", SECONDS, mean_text(seconds), "lower", cost=True),
        Column("peak memory (MiB)", MEMORY, lambda row: fixed(0)(row["mean"] / 2**20), "lower", cost=True),
        Column("TPME (%)", rows["tpme"], mean_text(fixed(1)), "lower", places=1, cost=True),
        Column("best epoch", "best_epoch", _each_seed, "lower", cost=True),
        Column("seeds", rows["finished"], lambda row: f"{row['finished']}/{row['planned']}", cost=True),
    ]


def group_columns(study: Study, section: Section, kind: str, metric: str) -> list[Column]:
    """One column for each group of users or items, with a metric of the group.

    Numbers of users may differ between rows: new items depend on the training users.
    """
    columns = []
    for name in study.numbers(f"groups.{kind}."):
        group, _, what = name.rpartition(".")
        users = section.runs[f"groups.{kind}.{group}.users"].dropna()
        if what == metric and len(users):
            title = f"{group} (n = {span(users)})"
            columns.append(Column(title, f"groups.{kind}.{name}", _with_deviation))
    return columns


def _paper_columns(
    section: Section, paper: PaperFigures, metric: str, quantity: str, places: int
) -> list[Column]:
    """The published values of a metric, and the differences of the measured ones."""
    published = paper.of(section.name, metric).reindex(section.rows.index)
    difference = section.over_seeds(quantity)["mean"] - published
    cost = quantity == TRAINED
    return [
        Column(f"{metric}, paper", published, mean_text(fixed(places)), cost=cost, optional=True),
        Column(f"{metric}, difference", difference, mean_text(fixed(places, "+")), cost=cost, optional=True),
    ]


def mean_text(text: Callable[[float], str]) -> Callable[[pd.Series[Any]], str]:
    """Formats the value of a row alone."""
    return lambda row: text(row["mean"])


def _with_deviation(row: pd.Series[Any]) -> str:
    """Mean, standard deviation if there are several seeds, and the number of seeds if any are missing."""
    deviation = f" ± {row['deviation']:.2f}" if row["count"] > 1 else ""
    missing = f" ({row['count']:.0f} of {row['planned']})" if row["count"] < row["planned"] else ""
    return fixed(2)(row["mean"]) + deviation + missing


def _starred(row: pd.Series[Any]) -> str:
    return _with_deviation(row) + (" *" if row["corrected"] < LEVEL else "")


def _each_seed(row: pd.Series[Any]) -> str:
    return ", ".join(f"{value:.0f}" for value in row["values"])


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
                texts.loc[str(row), column.name] = column.text(line)
        for row, state in section.rows.loc[texts.index, "state"].items():
            if state != "finished":
                texts.loc[str(row), str((texts.loc[str(row)] == _NOTHING).idxmax())] = state
        return cls(title, list(found), values, texts, marks, notes)

    def lines(self) -> Iterator[tuple[str, Iterator[tuple[str, float, float]]]]:
        """Name, and text, value and mark of each cell, of each line."""
        for name in self.texts.index:
            yield name, zip(self.texts.loc[name], self.values.loc[name], self.marks.loc[name], strict=True)


def comparison_table(study: Study, section: Section, paper: PaperFigures) -> Table:
    """Accuracy and cost of a section's rows."""
    return Table.of(section.name, comparison_columns(study, section, paper), section, _notes(study, section))


def metrics_table(study: Study, section: Section) -> Table:
    """All test metrics."""
    columns = [Column(f"{name} (%)", f"test.{name}", _with_deviation) for name in study.numbers("test.")]
    return Table.of("All test metrics", columns, section)


def group_tables(study: Study, section: Section) -> list[Table]:
    """One table per kind of group and headline metric, with one column per group."""
    kinds = dict.fromkeys(name.partition(".")[0] for name in study.numbers("groups."))
    return [
        Table.of(f"{metric} (%) by {kind}", group_columns(study, section, kind, metric), section)
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
    if reference not in set(rows["name"]):
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
    failed = section.runs.loc[section.runs["state"].str.startswith("failed"), "row"].value_counts(sort=False)
    if len(failed):
        notes.append(f"Failed runs: {'; '.join(f'{row} {count}' for row, count in failed.items())}.")
    if rows["tpme"].notna().any():
        notes.append(
            "TPME: 0.45 seconds per epoch + 0.10 trained parameters + 0.45 peak memory, each min-max "
            "normalised over the compared rows that train parameters; lower is better (Fu et al., SIGIR "
            "2024)."
        )
    return notes
