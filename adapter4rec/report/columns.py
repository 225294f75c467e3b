"""The columns of the tables. A new column is one entry in :func:`comparison_columns`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from adapter4rec.report.paper import PaperFigures
from adapter4rec.report.results import MEMORY, SECONDS, TRAINED, Section, Study
from adapter4rec.report.significance import LEVEL
from adapter4rec.report.wording import fixed, p_value, seconds, span

BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: header, with the unit.
        compute: the value of each row of a section, NaN if it has none: as :meth:`Section.over_seeds`, or the
            values alone.
        text: formats a row, which has the results of ``compute`` (values alone as ``mean``) and the columns
            of :attr:`Section.rows`.
        better: which direction is better.
        places: decimal places to which values are compared to mark the best and the second best; None if the
            column is not marked.
        cost: whether it is a cost of training, which has a LaTeX table of its own.
        optional: whether the column is omitted if no row has a value.
    """

    name: str
    compute: Callable[[Section], pd.DataFrame | pd.Series[float]]
    text: Callable[[pd.Series[Any]], str]
    better: Literal["higher", "lower"] = "higher"
    places: int | None = None
    cost: bool = False
    optional: bool = False

    def of(self, section: Section) -> pd.DataFrame:
        """The rows of a section with the results of ``compute``, and their ``mark``: BEST, SECOND or NaN."""
        found = self.compute(section)
        rows = section.rows.join(found.rename("mean") if isinstance(found, pd.Series) else found)
        grouped = rows["mean"].round(self.places or 0).groupby(rows["group"])
        ranks = grouped.rank("dense", ascending=self.better == "lower")
        marked = (self.places is not None) & (ranks <= SECOND) & (grouped.transform("count") > 1)
        return rows.assign(mark=ranks.where(marked))


def comparison_columns(study: Study, paper: PaperFigures) -> list[Column]:
    """The columns of the comparison tables: accuracy, then cost."""
    first = f"test.{study.headline[0]}"
    accuracy = [Column(study.scale_label or "scale", _of_rows("scale"), _mean("{:g}".format), optional=True)]
    for metric in study.headline:
        text = _starred if metric == f"NDCG@{study.cutoff}" else _with_deviation
        accuracy.append(Column(f"{metric} (%)", _over_seeds(f"test.{metric}"), text, places=2))
        accuracy += _paper_columns(paper, metric, f"test.{metric}", 2)
    return [
        *accuracy,
        Column("relative (%)", lambda section: section.relative(first), _mean(fixed(1, "+"))),
        Column("p", _of_rows("corrected"), _mean(p_value), "lower"),
        Column("trained parameters", _over_seeds(TRAINED), _mean(fixed(0)), "lower", cost=True),
        *_paper_columns(paper, "trained parameters", TRAINED, 0, cost=True),
        Column("share (%)", _over_seeds("parameters.share"), _mean(fixed(2)), "lower", cost=True),
        Column("s / epoch", _over_seeds(SECONDS), _mean(seconds), "lower", cost=True),
        Column("peak memory (MiB)", _over_seeds(MEMORY), _mebibytes, "lower", cost=True),
        Column("TPME (%)", _of_rows("tpme"), _mean(fixed(1)), "lower", places=1, cost=True),
        Column("best epoch", _over_seeds("best_epoch"), _each_seed, "lower", cost=True),
        Column("seeds", _of_rows("finished"), lambda row: f"{row['finished']}/{row['planned']}", cost=True),
    ]


def metric_columns(study: Study) -> list[Column]:
    """One column for each test metric."""
    return [Column(f"{name} (%)", _over_seeds(f"test.{name}"), _with_deviation) for name in study.metrics]


def group_columns(section: Section, kind: str, metric: str) -> list[Column]:
    """One column for each group of users or items, with a metric of the group.

    Numbers of users may differ between rows: new items depend on the training users.
    """
    columns = []
    for name in section.runs:
        if name.startswith(f"groups.{kind}.") and name.endswith(f".{metric}"):
            users = section.runs[name.removesuffix(metric) + "users"].dropna()
            if len(users):
                title = f"{name.split('.')[2]} (n = {span(users)})"
                columns.append(Column(title, _over_seeds(name), _with_deviation))
    return columns


def _paper_columns(
    paper: PaperFigures, metric: str, quantity: str, places: int, *, cost: bool = False
) -> list[Column]:
    """The published values of a metric, and the differences of the measured ones."""

    def published(section: Section) -> pd.Series[float]:
        return paper.of(section.name, metric).reindex(section.rows.index)

    def difference(section: Section) -> pd.Series[float]:
        return section.over_seeds(quantity)["mean"] - published(section)

    return [
        Column(f"{metric}, paper", published, _mean(fixed(places)), cost=cost, optional=True),
        Column(f"{metric}, difference", difference, _mean(fixed(places, "+")), cost=cost, optional=True),
    ]


def _over_seeds(quantity: str) -> Callable[[Section], pd.DataFrame]:
    return lambda section: section.over_seeds(quantity)


def _of_rows(name: str) -> Callable[[Section], pd.Series[float]]:
    return lambda section: section.rows[name]


def _mean(text: Callable[[float], str]) -> Callable[[pd.Series[Any]], str]:
    return lambda row: text(row["mean"])


def _with_deviation(row: pd.Series[Any]) -> str:
    """Mean, standard deviation if there are several seeds, and the number of seeds if any are missing."""
    deviation = f" ± {row['deviation']:.2f}" if row["count"] > 1 else ""
    missing = f" ({row['count']:.0f} of {row['planned']})" if row["count"] < row["planned"] else ""
    return fixed(2)(row["mean"]) + deviation + missing


def _starred(row: pd.Series[Any]) -> str:
    return _with_deviation(row) + (" *" if row["corrected"] < LEVEL else "")


def _mebibytes(row: pd.Series[Any]) -> str:
    return fixed(0)(row["mean"] / 2**20)


def _each_seed(row: pd.Series[Any]) -> str:
    return ", ".join(f"{value:.0f}" for value in row["values"])
