"""The tables of a section: accuracy and cost of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from adapter4rec.report import wording
from adapter4rec.report.efficiency import section_tpme
from adapter4rec.report.paper import TRAINED, PaperFigures
from adapter4rec.report.results import ReportedStudy, ResultRow, Section, Statistic
from adapter4rec.report.significance import LEVEL, NAME, Comparison, compare
from adapter4rec.report.tables import NOTHING, Cell, Column, Line, Mark, Table

_METRIC_PLACES, _TPME_PLACES = 2, 1
"""Decimal places; values that are equal after rounding share a mark."""
_STAR = "*"


@dataclass(frozen=True)
class Analysis:
    """A study with everything that is computed from its results.

    Attributes:
        study: rows and runs.
        paper: published results entered by the user.
        comparisons: significance test of each finished row against its reference.
        tpme: TPME in per cent, for the rows that have one.
    """

    study: ReportedStudy
    paper: PaperFigures
    comparisons: Mapping[ResultRow, Comparison]
    tpme: Mapping[ResultRow, float]

    @classmethod
    def of(cls, study: ReportedStudy, paper: PaperFigures) -> Analysis:
        """Compute the comparisons and TPME of all sections."""
        comparisons: dict[ResultRow, Comparison] = {}
        costs: dict[ResultRow, float] = {}
        for section in study.sections:
            comparisons |= compare(section, study.cutoff)
            costs |= section_tpme(section)
        return cls(study, paper, comparisons, costs)


def comparison_table(analysis: Analysis, section: Section) -> Table:
    """Accuracy and cost of a section's rows in one table."""
    return accuracy_table(analysis, section).beside(efficiency_table(analysis, section))


def accuracy_table(analysis: Analysis, section: Section) -> Table:
    """Test metrics, with published results and relative to the reference row."""
    study = analysis.study
    columns, cells = _scale_column(study, section)
    for metric in study.headline:
        columns.append(Column(f"{metric} (%)"))
        cells.append(_metric_cells(analysis, section, metric))
        if analysis.paper.has(section.name, metric):
            columns += [Column(f"{metric}, paper"), Column("difference")]
            cells += _paper_cells(analysis, section, metric, lambda row, name=metric: row.test(name))
    columns.append(Column(f"{study.headline[0]} relative to {section.reference} (%)"))
    cells.append({row: _relative(study, section, row) for row in section.rows})
    columns.append(Column("p", ascending=True))
    cells.append({row: _p_cell(analysis, section, row) for row in section.rows})
    return _table(section, columns, cells, _accuracy_notes(analysis, section))


def efficiency_table(analysis: Analysis, section: Section) -> Table:
    """Cost of training."""
    columns = [Column("trained parameters", ascending=True)]
    cells = [{row: _cell(row, row.trained_parameters, wording.count) for row in section.rows}]
    if analysis.paper.has(section.name, TRAINED):
        columns += [Column(f"{TRAINED}, paper", ascending=True), Column("difference", ascending=True)]
        cells += _paper_cells(analysis, section, TRAINED, lambda row: row.trained_parameters)
    columns += [
        Column(name, ascending=True)
        for name in ("share (%)", "s / epoch", "peak memory (MiB)", "TPME (%)", "best epoch")
    ]
    cells += [
        {row: _cell(row, row.trained_share, wording.per_cent) for row in section.rows},
        {row: _cell(row, row.seconds_per_epoch, wording.seconds) for row in section.rows},
        {row: _cell(row, row.peak_memory, wording.count) for row in section.rows},
        _marked(section, {row: _tpme_cell(analysis, row) for row in section.rows}, _TPME_PLACES, least=True),
        {row: _best_epoch(row) for row in section.rows},
    ]
    columns.append(Column("seeds"))
    cells.append({row: _seeds(row) for row in section.rows})
    return _table(section, columns, cells, _efficiency_notes(analysis, section))


def _table(
    section: Section,
    columns: list[Column],
    cells: Sequence[Mapping[ResultRow, Cell]],
    notes: tuple[str, ...],
) -> Table:
    lines = tuple(
        Line(row.name, tuple(column[row] for column in cells), "" if row.finished else row.state)
        for row in section.rows
    )
    return Table(section.name, "", tuple(columns), lines, notes)


def _scale_column(study: ReportedStudy, section: Section) -> tuple[list[Column], list[dict[ResultRow, Cell]]]:
    if study.plan.scale_label is None or all(row.planned.scale is None for row in section.rows):
        return [], []
    scales = {row: row.planned.scale for row in section.rows}
    cells = {row: NOTHING if one is None else Cell(f"{one:g}", one) for row, one in scales.items()}
    return [Column(study.plan.scale_label, ascending=True)], [cells]


def _metric_cells(analysis: Analysis, section: Section, metric: str) -> dict[ResultRow, Cell]:
    tested = metric == f"NDCG@{analysis.study.cutoff}"
    cells = {}
    for row in section.rows:
        found = row.test(metric)
        cell = _cell(row, found, wording.per_cent)
        if found is not None:
            few = f"({found.count} of {len(row.runs)})" if found.count < len(row.runs) else ""
            compared = analysis.comparisons.get(row)
            star = _STAR if tested and compared and compared.significant else ""
            aside = " ".join(filter(None, (star, few)))
            cell = replace(cell, text=wording.with_deviation(found), aside=aside)
        elif not row.finished and metric == analysis.study.headline[0]:
            cell = Cell(row.state, words=True)
        cells[row] = cell
    return _marked(section, cells, _METRIC_PLACES)


def _cell(row: ResultRow, found: Statistic | None, text: Callable[[float], str]) -> Cell:
    return absent(row) if found is None else Cell(text(found.mean), found.mean)


def absent(row: ResultRow) -> Cell:
    """The cell for a missing value."""
    return NOTHING if row.finished else Cell(row.state.partition(" (")[0], words=True)


def _marked(
    section: Section, cells: dict[ResultRow, Cell], places: int, *, least: bool = False
) -> dict[ResultRow, Cell]:
    """Mark the best and second-best values of a column, separately for each group of compared rows.

    Args:
        section: defines which rows are compared.
        cells: cells of the column.
        places: decimal places to round to before comparing.
        least: whether the smallest value is the best.
    """
    found = dict(cells)
    for rows in section.compared:
        values = {row: round(value, places) for row in rows if (value := cells[row].value) is not None}
        if len(values) < 2:
            continue
        order = sorted(set(values.values()), reverse=not least)
        for value, mark in zip(order, (Mark.BEST, Mark.SECOND), strict=False):
            for row in (row for row in values if values[row] == value):
                found[row] = replace(cells[row], mark=mark)
    return found


def _relative(study: ReportedStudy, section: Section, row: ResultRow) -> Cell:
    metric = study.headline[0]
    reference = section.reference_of(row)
    mine, theirs = row.test(metric), reference.test(metric) if reference else None
    if mine is None or theirs is None or theirs.mean == 0:
        return absent(row)
    change = 100 * (mine.mean / theirs.mean - 1)
    return Cell(wording.difference(change, 1), change)


def _p_cell(analysis: Analysis, section: Section, row: ResultRow) -> Cell:
    found = analysis.comparisons.get(row)
    if found is None or found.corrected is None:
        return absent(row)
    return Cell(wording.p_value(found.corrected), found.corrected)


def _paper_cells(
    analysis: Analysis, section: Section, metric: str, measured: Callable[[ResultRow], Statistic | None]
) -> list[dict[ResultRow, Cell]]:
    papers, differences = {}, {}
    whole = metric == TRAINED
    for row in section.rows:
        figure, found = analysis.paper.of(row, metric), measured(row)
        papers[row], differences[row] = NOTHING, NOTHING if figure is None else absent(row)
        if figure is not None:
            text = wording.count(figure.value) if whole else wording.per_cent(figure.value)
            papers[row] = Cell(text, figure.value)
        if figure is not None and found is not None:
            change = found.mean - figure.value
            text = f"{change:+,.0f}".replace("-", "−") if whole else wording.difference(change)
            differences[row] = Cell(text, change)
    return [papers, differences]


def _tpme_cell(analysis: Analysis, row: ResultRow) -> Cell:
    value = analysis.tpme.get(row)
    return absent(row) if value is None else Cell(f"{value:.{_TPME_PLACES}f}", value)


def _best_epoch(row: ResultRow) -> Cell:
    epochs = [record["best_epoch"] for record in row.records]
    if not any(epochs):
        return absent(row)
    return Cell(", ".join(map(str, epochs)), sum(epochs) / len(epochs))


def _seeds(row: ResultRow) -> Cell:
    return Cell(f"{len(row.finished)}/{len(row.runs)}", len(row.finished))


def _failures(row: ResultRow) -> int:
    return sum(run.failed for run in row.runs)


def _accuracy_notes(analysis: Analysis, section: Section) -> tuple[str, ...]:
    notes = [_deviation_note(section), "Best values are bold, second-best values underlined."]
    if len(section.compared) > 1:
        notes[-1] = "Among rows at the same scale, best values are bold, second-best values underlined."
    return tuple(filter(None, (*notes, *_test_notes(analysis, section))))


def _deviation_note(section: Section) -> str:
    counts = {len(row.finished) for row in section.rows if row.finished}
    if not counts:
        return ""
    if counts == {1}:
        return "Results of one seed, without standard deviation."
    note = "Mean ± sample standard deviation over the finished seeds (see the last column)."
    return note + (" Rows with one finished seed have no deviation." if 1 in counts else "")


def _test_notes(analysis: Analysis, section: Section) -> list[str]:
    found = {row: analysis.comparisons[row] for row in section.rows if row in analysis.comparisons}
    tested = [one for one in found.values() if one.p is not None]
    notes = []
    if tested:
        users = sorted({one.users for one in tested})
        number = f"n = {users[0]:,}" + (f" to {users[-1]:,}" if len(users) > 1 else "") + " users"
        notes.append(
            f"p: {NAME}, of per-user NDCG@{analysis.study.cutoff} against {section.reference}; {number}, "
            f"{wording.plural(len(tested), 'comparison')}. {_STAR} p < {LEVEL}. The test does not cover the "
            "variance between training runs, since users' values are means over seeds; see the deviations."
        )
    elif not any(section.reference in (row.planned.name, row.planned.series) for row in section.rows):
        notes.append(f"No comparison: there is no row {section.reference}.")
    reasons = dict.fromkeys(one.trouble for one in found.values() if one.trouble)
    return notes + [f"No test: {reason}." for reason in reasons]


def _efficiency_notes(analysis: Analysis, section: Section) -> tuple[str, ...]:
    failed = [f"{row.name} {n} of {len(row.runs)}" for row in section.rows if (n := _failures(row))]
    notes = (f"Failed runs: {'; '.join(failed)}.",) if failed else ()
    if not any(row in analysis.tpme for row in section.rows):
        return notes
    return (
        *notes,
        "TPME: 0.45 seconds per epoch + 0.10 trained parameters + 0.45 peak memory, each min-max normalised "
        "over the compared rows that train parameters; lower is better (Fu et al., SIGIR 2024).",
    )
