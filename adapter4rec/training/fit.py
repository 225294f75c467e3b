"""The training loop, for one process or many."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from adapter4rec.data.batches import Batch, Division, EpochSteps, TrainingSet
from adapter4rec.data.loader import loaded_ahead
from adapter4rec.domains import Domain
from adapter4rec.evaluation.catalogue import Encoding
from adapter4rec.evaluation.leave_one_out import Split, rank
from adapter4rec.models.layers import compile_layers
from adapter4rec.models.sharding import average_gradients, is_sharded
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.run import Record, Run
from adapter4rec.stages import RunSettings
from adapter4rec.training.optimizer import count_parameters, make_optimizer, parameter_groups
from adapter4rec.training.state import Progress, last_progress, restore_state, save_state
from adapter4rec.training.testing import finish, test_again, trained_users
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import Precision, choose_precision
from adapter4rec.utils.process_group import Process

_DROPOUT = 2
_BUFFERS_ARE_SENT = "forward_sync_buffers"
if _BUFFERS_ARE_SENT not in inspect.signature(DistributedDataParallel).parameters:
    _BUFFERS_ARE_SENT = "broadcast_buffers"  # its name before torch 2.14


def carry_out(model: TransRec, domain: Domain, settings: RunSettings, process: Process, run: Run) -> Record:
    """Train and test a model, or test it again, or report a run that has finished before.

    The model ends with the weights of its best epoch.

    Args:
        model: what requires gradients is trained.
        domain: users and items.
        settings: of the run; ``mode`` says what to do.
        process: this process.
        run: its folder.

    Returns:
        The run's result; the test metrics alone in mode ``test``.
    """
    if settings.mode == "test":
        return test_again(model, domain, process, run)
    with run.locked():
        finished = run.finished_result()
        if finished is not None:
            if finished["epoch"] > 0:  # an epoch was trained, so its weights must be there
                run.load_best(model)
            return finished
        counts = count_parameters(model)
        run.begin(counts, domain)
        if settings.compile and settings.uses_content:
            compile_layers(model.item_encoder.backbone, behind=getattr(domain.store, "layers", ()))
        if counts.trained:
            train(model, domain, settings, process, run)
        return finish(model, domain, process, run)


def train(model: TransRec, domain: Domain, settings: RunSettings, process: Process, run: Run) -> None:
    """Train the parameters that require gradients, validate after each epoch, keep the best and the last.

    Goes on from the run's last state where there is one.

    Raises:
        UserError: the loss is not a number.
    """
    precision = choose_precision(settings.precision, process.device)
    if settings.shard and precision.name == "fp16":
        raise UserError("--shard true: does not scale fp16 gradients; take --precision bf16 or fp32")
    groups = parameter_groups(model, settings.learning_rates())
    for group in groups:
        run.say("  " + group.describe())
    run.say(f"precision {precision.name}, {process.count} process(es) on {process.device}")
    trainer = Trainer(model, make_optimizer(groups), precision, settings, process)
    trained_in = last_progress(run).precision
    if trained_in not in ("", precision.name):
        raise UserError(
            f"{run.folder}: was trained in {trained_in}, and --precision {settings.precision} is "
            f"{precision.name} on this device; a run goes on in the format in which it began"
        )
    progress = restore_state(run, model, trainer.optimizer, trainer.scaler)
    progress.precision = precision.name
    if progress.history or progress.step:
        run.say(f"going on with epoch {progress.epoch}, step {progress.step}")
    users = trained_users(domain, settings)
    examples = TrainingSet(domain.interactions, settings.batch_size, settings.seed, users)
    how = Encoding.of(settings, process)
    while progress.epoch <= settings.epochs:
        steps = EpochSteps(
            examples,
            domain.store,
            progress.epoch,
            Division(process.rank, process.count, settings.accumulation_steps),
            last_place_only=settings.objective.last_place_only,
        )
        trainer.train_epoch(steps, progress, run)
        started = time.monotonic()
        metrics = rank(model, domain, Split.VALIDATION, process, how).metrics(settings.ks)
        took = {"evaluation_seconds": time.monotonic() - started}
        record = _record(progress, len(steps), len(examples.users)) | took | metrics
        run.say(
            f"epoch {record['epoch']}: loss {record['loss']:.4f}  HR@10 {metrics['HR@10']:.4f} %  "
            f"NDCG@10 {metrics['NDCG@10']:.4f} %  {record['seconds']:.1f} s, "
            f"{record['sequences_per_second']:.1f} sequences/s, input wait {record['input_wait']:.1f} %"
        )
        if progress.finish_epoch(record):
            run.save_best(model, record)
        save_state(run, model, trainer.optimizer, trainer.scaler, progress)


@dataclass
class Trainer:
    """A model on its device, with its optimizer: what a training step needs.

    Attributes:
        model: its trained parameters are updated in place.
        optimizer: over the trained parameters.
        precision: the number format.
        settings: batch division, seed.
        process: this process; with several, gradients are averaged over all.
    """

    model: TransRec
    optimizer: torch.optim.Optimizer
    precision: Precision
    settings: RunSettings
    process: Process

    def __post_init__(self) -> None:
        self.scaler = self.precision.scaler()
        self.model.item_encoder.recompute = self.settings.recompute
        self.parallel: nn.Module = self.model
        self.sharded = is_sharded(self.model)
        if self.process.count > 1 and not self.sharded:
            self.parallel = DistributedDataParallel(
                self.model, **{_BUFFERS_ARE_SENT: False}, gradient_as_bucket_view=True
            )

    def train_epoch(self, steps: EpochSteps, progress: Progress, run: Run) -> None:
        """Train the steps of an epoch that are still to do; the run is saved from time to time."""
        self.model.train()
        loader = self._loader(steps, progress.step)
        started = saved = time.monotonic()
        before = progress.seconds
        with self._bar(steps, progress) as bar, self.precision.frozen_weights(self.model.item_encoder):
            while (parts := self._next(loader, progress)) is not None:
                seed_step(self.settings.seed, progress.epoch, progress.step, self.process.rank)
                loss = self.step(parts)
                if not np.isfinite(loss):
                    raise UserError(_not_a_number(progress, run))
                progress.step += 1
                progress.loss_sum += loss
                progress.seconds = before + time.monotonic() - started
                bar.set_postfix(loss=f"{progress.loss_sum / progress.step:.4f}", refresh=False)
                bar.update(min(steps.examples.batch_size, bar.total - bar.n))
                if self._due(saved) and progress.step < len(steps):
                    save_state(run, self.model, self.optimizer, self.scaler, progress)
                    saved = time.monotonic()

    def _due(self, saved: float) -> bool:
        """Whether the run is to be saved; of a divided model all processes save at once."""
        due = time.monotonic() - saved > 60 * self.settings.save_minutes
        return self.process.first_decides(lambda: due) if self.sharded else due

    @staticmethod
    def _next(loader: Iterator[list[Batch]], progress: Progress) -> list[Batch] | None:
        asked = time.monotonic()
        parts = next(loader, None)
        progress.waited += time.monotonic() - asked
        return parts

    def _loader(self, steps: EpochSteps, first_step: int) -> Iterator[list[Batch]]:
        device = self.process.device
        return loaded_ahead(
            steps,
            range(first_step, len(steps)),
            workers=self.settings.workers_on(device),
            prefetch=self.settings.prefetch,
            pin_memory=self.settings.pins_memory_on(device),
        )

    def step(self, parts: list[Batch]) -> float:
        """One update from a global batch, of which ``parts`` are this process's.

        Returns:
            The loss of the global batch.
        """
        total = torch.zeros((), device=self.process.device)
        for number, part in enumerate(parts, 1):
            with self._reduced_at(last=number == len(parts)), self.precision.autocast():
                loss = self.parallel(part.to(self.process.device))
                # Each process holds a part of the sum; DistributedDataParallel averages gradients.
                self.scaler.scale(loss * self.process.count).backward()
            total += loss.detach()
        if self.sharded:
            average_gradients(self.model, self.process)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return self.process.sum_over_all(total).item()

    def _reduced_at(self, *, last: bool) -> AbstractContextManager:
        """Gradients are exchanged with the last accumulation part only."""
        if self.sharded:
            self.model.item_encoder.set_requires_gradient_sync(last)
        alone = self.process.count == 1 or self.sharded
        return nullcontext() if last or alone else self.parallel.no_sync()

    def _bar(self, steps: EpochSteps, progress: Progress) -> tqdm:
        users = len(steps.examples.users)
        return tqdm(
            desc=f"epoch {progress.epoch}",
            total=users,
            initial=min(progress.step * steps.examples.batch_size, users),
            unit="seq",
            disable=not self.process.is_first,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            leave=False,
        )


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Fix the dropout of a step, so that a resumed run draws what an unbroken one draws."""
    words = np.random.SeedSequence([seed, _DROPOUT, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]) & (2**63 - 1))


def _record(progress: Progress, steps: int, users: int) -> Record:
    return {
        "epoch": progress.epoch,
        "split": Split.VALIDATION.value,
        "loss": progress.loss_sum / steps,
        "seconds": progress.seconds,
        "sequences_per_second": users / progress.seconds,
        "input_wait": 100 * progress.waited / progress.seconds,
    }


def _not_a_number(progress: Progress, run: Run) -> str:
    kept = f"the state before is in {run.last_path}" if run.last_path.exists() else "nothing was saved yet"
    return (
        f"the loss is not a number in epoch {progress.epoch}, step {progress.step}; {kept}. "
        "Lower the learning rates, or train with --precision fp32"
    )
