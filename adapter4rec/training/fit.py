"""The training loop, for one process or many."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from tqdm import tqdm

from adapter4rec.data.batches import TrainingSet
from adapter4rec.data.domain import Domain
from adapter4rec.data.loader import load_ahead
from adapter4rec.evaluation.leave_one_out import Split
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.records import Record
from adapter4rec.runs.report_lines import epoch_line
from adapter4rec.runs.run import Run
from adapter4rec.training.schedule import learning_rate_factor
from adapter4rec.training.settings import TrainingSettings
from adapter4rec.training.setup import TrainingSetup, prepare, trained_users
from adapter4rec.training.state import Progress, restore_state, save_state
from adapter4rec.training.step import train_step
from adapter4rec.training.testing import ranking_of
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import shows_progress
from adapter4rec.utils.processes import signals_deferred
from adapter4rec.utils.records import damaged

_STANDSTILL, _CHANCE = 0.005, 1.5
"""A loss that moves less, as a fraction, stands still; a HR@10 below this multiple of chance is chance."""


def fit(model: TransRec, domain: Domain, settings: TrainingSettings, run: Run) -> list[Record]:
    """Train a model, validate, and save the best weights and the last state.

    Resumes from the last checkpoint of the run if it exists; the result is that of an
    uninterrupted run, on a CPU bit for bit.

    Args:
        model: on its device; trained parameters are those that require gradients.
        domain: users and items.
        settings: settings of the run.
        run: the run folder.

    Returns:
        The records of the epochs; none if the model has no trained parameters.

    Raises:
        UserError: the loss is not finite, or the checkpoint does not match the run.
    """
    if not run.counts.trained:
        return []
    setup = prepare(model, domain, settings, run.process)
    examples = TrainingSet(
        domain.interactions,
        domain.store,
        batch_size=settings.batch_size,
        seed=settings.seed,
        sampling=replace(model.loss.sampling, positions=model.positions),
        users=trained_users(domain, settings),
        process=run.process,
        accumulation_steps=settings.accumulation_steps,
    )
    for line in setup.describe():
        run.log(line)
    progress = restore_state(run, setup)
    run.stopped(progress.history)  # raises where training should have stopped before
    run.remove_result()
    if progress.step > examples.steps:
        raise damaged(run.last_path, f"step {progress.step}, but an epoch has {examples.steps} steps")
    try:
        while progress.epoch <= settings.epochs and not run.stopped(progress.history):
            with signals_deferred() as received:
                number = train_epoch(setup, examples, settings, progress, run, received)
            if number:  # another process of this run has received it
                signal.raise_signal(number)
            metrics, seconds = {}, 0.0
            if progress.epoch % settings.eval_every == 0 or progress.epoch == settings.epochs:
                started = time.monotonic()
                ranking = ranking_of(model, domain, settings, run.process, Split.VALIDATION)
                metrics, seconds = ranking.metrics(settings.ks), time.monotonic() - started
            with signals_deferred():
                record = progress.record(examples, metrics, seconds)
                run.log(epoch_line(record, settings.ks))
                if warning := standstill(progress.history, record, domain.interactions.n_items):
                    run.log(warning)
                if progress.finish_epoch(record):
                    run.save_best(model, record)
                save_state(run, setup, progress)
    except KeyboardInterrupt:  # always between two steps
        with signals_deferred():
            save_state(run, setup, progress)
        run.log(f"saved: epoch {progress.epoch}, {progress.step} of {examples.steps} steps")
        raise
    if run.stopped(progress.history):
        run.log(f"stopped: no higher HR@10 in {settings.patience} validations")
    return progress.history


def _stands(before: Record, now: Record, n_items: int) -> bool:
    at_random = now.get("HR@10", 100.0) <= _CHANCE * 1000 / n_items
    return at_random and bool(abs(now["loss"] - before["loss"]) <= _STANDSTILL * before["loss"])


def standstill(history: Sequence[Record], record: Record, n_items: int) -> str | None:
    """A warning if the loss has not moved since the last epoch, and the ranking is no better than chance.

    The run warns once.

    Args:
        history: records of the earlier epochs.
        record: of this epoch.
        n_items: N; a random ranking has a HR@10 of 10 / N.
    """
    records = [*history, record]
    if len(records) < 2 or not _stands(records[-2], record, n_items):
        return None
    if any(_stands(before, now, n_items) for before, now in pairwise(history)):
        return None
    before, now = records[-2]["loss"], record["loss"]
    return (
        f"warning: the loss has not moved in an epoch ({before:.4f}, then {now:.4f}), and HR@10 is that of a "
        "random ranking. The learning rates may be too low; or all items have nearly the same embedding, as "
        "with a small backbone of random weights (docs/extending.md, section A backbone)"
    )


def train_epoch(
    setup: TrainingSetup,
    examples: TrainingSet,
    settings: TrainingSettings,
    progress: Progress,
    run: Run,
    received: Callable[[], int] = lambda: 0,
) -> int:
    """Train the remaining steps of an epoch, with a checkpoint every ``save_minutes``.

    Args:
        setup: model and optimizer.
        examples: the training batches.
        settings: settings of the run.
        progress: updated after each step.
        run: the run folder.
        received: returns the signal that this process has received, or 0.

    Returns:
        The signal that one of the processes has received, after which all have stopped; 0 if the epoch is
        complete.
    """
    setup.model.train()
    started = saved = time.monotonic()
    before = progress.seconds
    bar = tqdm(
        desc=f"epoch {progress.epoch}",
        total=len(examples.users),
        initial=min(progress.step * examples.batch_size, len(examples.users)),
        unit="seq",
        disable=not (setup.process.is_rank0 and shows_progress()),
        leave=False,
    )
    batches = load_ahead(
        examples.__getitem__,
        [(progress.epoch, step) for step in range(progress.step, examples.steps)],
        workers=settings.workers_on(setup.process.device),
        prefetch=settings.prefetch,
        pin_memory=settings.pins_memory_on(setup.process.device),
    )
    with bar, setup.precision.frozen_weights(setup.model.item_encoder):
        requested = time.monotonic()
        for batch in batches:
            progress.waited += time.monotonic() - requested
            taken = (progress.epoch - 1) * examples.steps + progress.step
            rate = learning_rate_factor(
                taken, settings.epochs * examples.steps, settings.warmup_steps, settings.schedule
            )
            try:
                loss = train_step(setup, batch, (settings.seed, progress.epoch, progress.step), rate)
            except FloatingPointError as error:
                last = run.last_path if run.last_path.exists() else "none"
                raise UserError(
                    f"non-finite values in epoch {progress.epoch}, step {progress.step}: {error} "
                    f"(last checkpoint: {last}); reduce the learning rates, or train with --precision fp32"
                ) from None
            progress.step += 1
            progress.loss_sum += loss
            progress.seconds = before + time.monotonic() - started
            bar.set_postfix(loss=f"{progress.loss_sum / progress.step:.4f}", refresh=False)
            bar.update(min(examples.batch_size, len(examples.users) - int(bar.n)))
            if progress.step < examples.steps and time.monotonic() - saved > 60 * settings.save_minutes:
                save_state(run, setup, progress)
                saved = time.monotonic()
            if number := setup.process.largest(received()):
                return number
            requested = time.monotonic()
    return 0
