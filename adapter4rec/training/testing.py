"""The test at the end of a run: the best epoch is evaluated on the test split and the result is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from torch import nn

from adapter4rec.data.domain import Domain
from adapter4rec.evaluation.baselines import BASELINES
from adapter4rec.evaluation.leave_one_out import Ranker, Ranking, Split, rank, rank_users, ranked_users
from adapter4rec.runs.records import Record, RunResult
from adapter4rec.runs.report_lines import result_line
from adapter4rec.runs.run import Run
from adapter4rec.training.settings import TrainingSettings
from adapter4rec.training.setup import trained_users
from adapter4rec.utils.process_group import Process

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec


def ranking_of(
    model: TransRec | Ranker, domain: Domain, settings: TrainingSettings, process: Process, split: Split
) -> Ranking:
    """Rank the catalogue for every user, as the settings say; with coverage on the test split.

    Args:
        model: the model, or a baseline without one.
        domain: users and items.
        settings: settings of the run.
        process: this process.
        split: validation or test.
    """
    ks, exclude = settings.ks if split is Split.TEST else (), settings.exclude_history
    if isinstance(model, nn.Module):
        return rank(cast("TransRec", model), domain, split, process, settings, ks)
    return rank_users(model, domain.interactions, split, process, ks, exclude_history=exclude)


def _baseline(domain: Domain, settings: TrainingSettings) -> Ranker:
    return BASELINES[settings.method](domain.interactions, trained_users(domain, settings))


def evaluate(
    model: TransRec | None, domain: Domain, settings: TrainingSettings, run: Run, history: Sequence[Record]
) -> RunResult:
    """Evaluate the best epoch, or what is not trained, on the test split, and write the result.

    Args:
        model: the model; None for a baseline without one.
        domain: users and items.
        settings: settings of the run.
        run: the run folder.
        history: the records of the epochs; empty if nothing was trained.

    Returns:
        The content of ``result.json``.
    """
    run.process.barrier()
    ranked = _baseline(domain, settings) if model is None else model
    if model is not None and history:
        best = run.load_best(model)
    else:
        metrics = ranking_of(ranked, domain, settings, run.process, Split.VALIDATION).metrics(settings.ks)
        best = {"epoch": 0, "split": Split.VALIDATION.value, **metrics}
    ranking = ranking_of(ranked, domain, settings, run.process, Split.TEST)
    users = ranked_users(domain.interactions, ranking.ranks, trained_users(domain, settings))
    return run.finish(history or [best], best, ranking.metrics(settings.ks), users)


def evaluate_again(model: TransRec | None, domain: Domain, settings: TrainingSettings, run: Run) -> RunResult:
    """Evaluate the best epoch of a finished run on the test split again, without writing files.

    Returns:
        The number of the epoch, ``epoch``, and the metrics in per cent, ``test``.

    Raises:
        UserError: the run has no best epoch yet.
    """
    best = run.load_best(model) if model is not None and run.counts.trained else {"epoch": 0}
    ranked = _baseline(domain, settings) if model is None else model
    metrics = ranking_of(ranked, domain, settings, run.process, Split.TEST).metrics(settings.ks)
    run.process.log(result_line(int(best["epoch"]), metrics, settings.ks))
    return RunResult({"epoch": best["epoch"], "test": metrics}, run.folder)


def evaluate_baseline(domain: Domain, settings: TrainingSettings, run: Run) -> RunResult:
    """Evaluate a baseline without a model and write its result like that of a run.

    With ``--mode test`` it is evaluated again without writing files. A finished run is only reported.
    """
    if settings.mode == "test":
        return evaluate_again(None, domain, settings, run)
    with run.locked():
        result = run.finished_result()
        if result is None:
            run.begin(domain)
            result = evaluate(None, domain, settings, run, [])
    return result
