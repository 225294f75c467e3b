"""The test that ends a run: the best epoch is ranked on the test split, and the result written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from adapter4rec.data.batches import share_of_users
from adapter4rec.domains import Domain
from adapter4rec.evaluation.catalogue import Encoding
from adapter4rec.evaluation.leave_one_out import Ranking, Split, rank, rank_by_popularity, ranked_users
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.run import Record, Run, Tested
from adapter4rec.stages import RunSettings
from adapter4rec.training.optimizer import ParameterCounts, count_parameters
from adapter4rec.training.state import last_progress
from adapter4rec.utils.machine import peak_memory
from adapter4rec.utils.process_group import Process

Ranks = Callable[..., Ranking]
"""Ranks a split: called with it, and with ``shown_at`` where coverage is asked for."""


def trained_users(domain: Domain, settings: RunSettings) -> np.ndarray | None:
    """Numbers of the users that a run trains on; None for all of them."""
    if settings.user_share == 1:
        return None
    return share_of_users(domain.interactions.n_users, settings.user_share, settings.seed)


def finish(model: TransRec, domain: Domain, process: Process, run: Run) -> Record:
    """Test the best epoch (or the model as it is, where nothing is trained) and write the result."""
    process.wait_for_all()
    ranks = _of_model(model, domain, process, run.settings)
    history = last_progress(run).history
    if history:
        best = run.load_best(model)
    else:
        best = _untrained(ranks, run.settings)
        history = [best]
    return _test(ranks, domain, process, run, history, best, count_parameters(model))


def test_again(model: TransRec, domain: Domain, process: Process, run: Run) -> Record:
    """Evaluate a finished run's best epoch on the test split once more; nothing is written.

    Raises:
        UserError: the run has no best epoch yet.
    """
    best = run.load_best(model) if count_parameters(model).trained else {"epoch": 0}
    return _say_again(_of_model(model, domain, process, run.settings), best["epoch"], process, run.settings)


def carry_out_popularity(domain: Domain, process: Process, run: Run) -> Record:
    """Evaluate the popularity baseline and write it like the result of a run; or report or test it again."""
    settings = run.settings
    users = trained_users(domain, settings)

    def ranks(split: Split, shown_at: Iterable[int] = ()) -> Ranking:
        return rank_by_popularity(domain.interactions, split, process, users, shown_at)

    if settings.mode == "test":
        return _say_again(ranks, 0, process, settings)
    with run.locked():
        finished = run.finished_result()
        if finished is not None:
            return finished
        nothing = ParameterCounts(0, 0)
        run.begin(nothing, domain)
        best = _untrained(ranks, settings)
        return _test(ranks, domain, process, run, [best], best, nothing)


def _of_model(model: TransRec, domain: Domain, process: Process, settings: RunSettings) -> Ranks:
    return partial(_rank_model, model, domain, process, Encoding.of(settings, process))


def _rank_model(
    model: TransRec,
    domain: Domain,
    process: Process,
    how: Encoding,
    split: Split,
    shown_at: Iterable[int] = (),
) -> Ranking:
    return rank(model, domain, split, process, how, shown_at)


def _untrained(ranks: Ranks, settings: RunSettings) -> Record:
    """The validation record of what is not trained."""
    metrics = ranks(Split.VALIDATION).metrics(settings.ks)
    return {"epoch": 0, "split": Split.VALIDATION.value, **metrics}


def _test(
    ranks: Ranks,
    domain: Domain,
    process: Process,
    run: Run,
    history: list[Record],
    best: Record,
    counts: ParameterCounts,
) -> Record:
    ks = run.settings.ks
    ranking = ranks(Split.TEST, shown_at=ks)
    users = ranked_users(domain.interactions, ranking.ranks, trained_users(domain, run.settings))
    tested = Tested(best, ranking.metrics(ks), users)
    return run.finish(history, tested, counts, peak_memory(process.device))


def _say_again(ranks: Ranks, epoch: int, process: Process, settings: RunSettings) -> Record:
    test = ranks(Split.TEST, shown_at=settings.ks).metrics(settings.ks)
    process.say(f"test of epoch {epoch}: HR@10 {test['HR@10']:.4f} %  NDCG@10 {test['NDCG@10']:.4f} %")
    return test
