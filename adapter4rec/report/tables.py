"""Tables of a section, and their columns. A new column is one entry in :func:`comparison_columns`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from adapter4rec.report.paper import Figures
from adapter4rec.report.results import CUTOFF, MEMORY, SECONDS, TRAINED, Section, StudyResults
from adapter4rec.report.significance import CONFIDENCE, LEVEL, NAME
from adapter4rec.report.wording import fixed, number, p_value, seconds, span

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
        """The rows of a section with their value (or NaN), ``text``, and ``mark``: BEST, SECOND or NaN."""
        if isinstance(self.value, str):
            rows = section.rows.join(section.over_seeds(self.value))
        else:
            rows = section.rows.assign(mean=self.value)
        grouped = rows["mean"].round(self.places or 0).groupby(rows["group"])
        ranks = grouped.rank("dense", ascending=self.better == "lower")
        marked = (self.places is not None) & (ranks <= SECOND) & (grouped.transform("count") > 1)
        valued = zip(rows["mean"].notna(), rows.iterrows(), strict=True)
        texts = [self.text(row) if has_value else _NOTHING for has_value, (_, row) in valued]
        return rows.assign(mark=ranks.where(marked), text=texts)


def comparison_columns(study: StudyResults, section: Section, paper: Figures) -> list[Column]:
    """The columns of the comparison tables: accuracy, then cost."""
    rows = section.rows
    accuracy = [Column(study.scale_label or "scale", rows["scale"], "{[mean]:g}".format, optional=True)]
    for metric in study.headline:
        text = _starred if metric == f"NDCG@{CUTOFF}" else _with_deviation
        accuracy.append(Column(f"{metric} (%)", f"test.{metric}", text, places=2))
        accuracy += _paper_columns(section, paper, metric, f"test.{metric}", 2)
    mean = section.over_seeds(f"test.{study.headline[0]}")["mean"]
    of_reference = rows["reference"].map(mean)
    relative = 100 * (mean / of_reference.where(of_reference != 0) - 1)
    memory = section.over_seeds(MEMORY)["mean"] / 2**20
    return [
        *accuracy,
        Column("relative (%)", relative, fixed(1, "+")),
        Column("difference (points)", rows["difference"], _with_interval),
        Column("p", rows["corrected"], p_value, "lower"),
        Column("trained parameters", TRAINED, fixed(0), "lower", cost=True),
        *_paper_columns(section, paper, "trained parameters", TRAINED, 0),
        Column("share (%)", "parameters.share", fixed(2), "lower", cost=True),
        Column("s / epoch", SECONDS, seconds, "lower", cost=True),
        Column("peak memory (MiB)", memory, fixed(0), "lower", cost=True),
        Column("TPME (%)", rows["tpme"], fixed(1), "lower", places=1, cost=True),
        Column("best epoch", "best_epoch", _each_seed, "lower", cost=True),
        Column("seeds", rows["finished"], "{0[finished]}/{0[planned]}".format, cost=True),
    ]


def _paper_columns(section: Section, paper: Figures, metric: str, quantity: str, places: int) -> list[Column]:
    """The published values of a metric, and the differences of the measured ones."""
    published = pd.Series(paper.get((section.name, metric), {}), section.rows.index, dtype=float)
    difference = section.over_seeds(quantity)["mean"] - published
    cost = quantity == TRAINED
    return [
        Column(f"{metric}, paper", published, fixed(places), cost=cost, optional=True),
        Column(f"{metric}, difference", difference, fixed(places, "+"), cost=cost, optional=True),
    ]


def _with_deviation(row: pd.Series[Any]) -> str:
    """Mean, standard deviation if there are several seeds, and the number of seeds if any are missing."""
    deviation = f" ± {row['deviation']:.2f}" if row["count"] > 1 else ""
    missing = f" ({row['count']:.0f} of {row['planned']})" if row["count"] < row["planned"] else ""
    return fixed(2)(row) + deviation + missing


def _with_interval(row: pd.Series[Any]) -> str:
    mean, low, high = (number(row[name], 2, "+") for name in ("mean", "low", "high"))
    return mean if pd.isna(row["low"]) else f"{mean} ({low} to {high})"


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
        values, texts, marks = (
            pd.DataFrame({one.name: rows[part] for one, rows in found.items()})
            for part in ("mean", "text", "mark")
        )
        for row, state in section.rows.loc[texts.index, "state"].items():
            if state != "finished":
                texts.loc[str(row), str((texts.loc[str(row)] == _NOTHING).idxmax())] = state
        return cls(title, list(found), values, texts, marks, notes)

    def lines(self) -> Iterator[tuple[str, Iterator[tuple[str, float, float]]]]:
        """Name, and text, value and mark of each cell, of each line."""
        for name in self.texts.index:
            yield name, zip(self.texts.loc[name], self.values.loc[name], self.marks.loc[name], strict=True)


def comparison_table(study: StudyResults, section: Section, paper: Figures) -> Table:
    """Accuracy and cost of a section's rows."""
    return Table.of(section.name, comparison_columns(study, section, paper), section, _notes(study, section))


def metrics_table(study: StudyResults, section: Section) -> Table:
    """All test metrics."""
    columns = [Column(f"{name} (%)", f"test.{name}", _with_deviation) for name in study.numbers("test.")]
    return Table.of("All test metrics", columns, section)


def group_tables(study: StudyResults, section: Section) -> list[Table]:
    """One table per kind of group and headline metric, with one column per group.

    Numbers of users may differ between rows: new items depend on the training users.
    """
    columns: dict[str, list[Column]] = {}
    for name in study.numbers("groups.") if study.plan.groups else ():
        group, _, metric = name.rpartition(".")
        kind, _, group_name = group.partition(".")
        users = section.runs[f"groups.{group}.users"].dropna()
        if metric in study.headline[:2] and len(users):
            title = f"{group_name} (n = {span(users)})"
            of_kind = columns.setdefault(f"{metric} (%) by {kind}", [])
            of_kind.append(Column(title, f"groups.{name}", _with_deviation))
    return [Table.of(title, of_kind, section) for title, of_kind in columns.items()]


def _notes(study: StudyResults, section: Section) -> list[str]:
    rows, reference = section.rows, study.plan.reference
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
            f"p: {NAME}, of per-user NDCG@{CUTOFF} against {reference}; n = {span(users)} users, "
            f"{len(users):,} comparison{'s' * (len(users) > 1)}. * p < {LEVEL}. The test does not cover the "
            "variance between training runs, since users' values are means over seeds; the interval does."
        )
        notes.append(
            f"Difference: of the mean {study.headline[0]} over the common seeds to that of {reference}, with "
            f"its {CONFIDENCE:.0%} interval over users and seeds (over users only if it is one seed)."
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
