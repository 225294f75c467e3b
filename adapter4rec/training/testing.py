"""The test at the end of a run: the best epoch is evaluated on the test split and the result is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from adapter4rec.data.domain import Domain
from adapter4rec.evaluation.leave_one_out import (
    Ranking,
    Split,
    popularity,
    rank,
    rank_users,
    ranked_users,
)
from adapter4rec.models.parameters import ParameterCounts, count_parameters
from adapter4rec.runs.report_lines import result_line
from adapter4rec.runs.run import Record, Run
from adapter4rec.training.settings import TrainingSettings
from adapter4rec.training.setup import trained_users
from adapter4rec.training.state import last_progress
from adapter4rec.utils.machine import peak_memory
from adapter4rec.utils.process_group import Process

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec

Ranks = Callable[..., Ranking]
"""Called with a split, and with the cutoffs of coverage as ``coverage_at``."""


def evaluate(
    model: TransRec, domain: Domain, settings: TrainingSettings, process: Process, run: Run
) -> Record:
    """Evaluate the best epoch (or an untrained model) on the test split, and write the result.

    Returns:
        The content of ``result.json``.
    """
    process.barrier()
    ranks = _ranks_of(model, domain, settings, process)
    history = last_progress(run).history
    if history:
        best = run.load_best(model)
    else:
        best = _untrained(ranks, settings)
        history = [best]
    return _evaluate(ranks, domain, settings, process, run, history, best, count_parameters(model))


def evaluate_again(
    model: TransRec, domain: Domain, settings: TrainingSettings, process: Process, run: Run
) -> Record:
    """Evaluate the best epoch of a finished run on the test split again, without writing files.

    Returns:
        The metrics, in per cent.

    Raises:
        UserError: the run has no best epoch yet.
    """
    best = run.load_best(model) if count_parameters(model).trained else {"epoch": 0}
    ranks = _ranks_of(model, domain, settings, process)
    return _report_again(ranks, best["epoch"], process, settings)


def evaluate_popularity(domain: Domain, settings: TrainingSettings, process: Process, run: Run) -> Record:
    """Evaluate the popularity baseline and write its result like that of a run.

    With ``--mode test`` it is evaluated again without writing files. A finished run is only reported.
    """
    baseline = popularity(domain.interactions, trained_users(domain, settings))
    exclude = settings.exclude_history
    ranks = partial(rank_users, *baseline, domain.interactions, process=process, exclude_history=exclude)
    if settings.mode == "test":
        return _report_again(ranks, 0, process, settings)
    with run.locked():
        finished = run.finished_result()
        if finished is not None:
            return finished
        run.begin(None, domain)
        best = _untrained(ranks, settings)
        return _evaluate(ranks, domain, settings, process, run, [best], best, ParameterCounts(0, 0))


def _ranks_of(model: TransRec, domain: Domain, settings: TrainingSettings, process: Process) -> Ranks:
    return partial(rank, model, domain, process=process, settings=settings)


def _untrained(ranks: Ranks, settings: TrainingSettings) -> Record:
    """The validation record of a model without training."""
    metrics = ranks(Split.VALIDATION).metrics(settings.ks)
    return {"epoch": 0, "split": Split.VALIDATION.value, **metrics}


def _evaluate(
    ranks: Ranks,
    domain: Domain,
    settings: TrainingSettings,
    process: Process,
    run: Run,
    history: list[Record],
    best: Record,
    counts: ParameterCounts,
) -> Record:
    ranking = ranks(Split.TEST, coverage_at=settings.ks)
    users = ranked_users(domain.interactions, ranking.ranks, trained_users(domain, settings))
    metrics = ranking.metrics(settings.ks)
    return run.finish(history, best, metrics, users, counts, peak_memory(process.device))


def _report_again(ranks: Ranks, epoch: int, process: Process, settings: TrainingSettings) -> Record:
    metrics = ranks(Split.TEST, coverage_at=settings.ks).metrics(settings.ks)
    process.log(result_line(epoch, metrics, settings.ks))
    return metrics
