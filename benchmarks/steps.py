"""Training steps of the project and of the released code's data flow, and their comparison."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.data.batches import Batch, Sampling, TrainingSet
from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import Domain
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.interactions import Interactions
from adapter4rec.models.registry import OBJECTIVES
from adapter4rec.models.transrec import TransRec
from adapter4rec.training.optimizer import make_optimizer
from adapter4rec.training.setup import prepare
from adapter4rec.training.step import train_step
from adapter4rec.utils.process_group import Process
from benchmarks import released_way
from benchmarks.measuring import Measurement, alone, given, in_turns, matmul_rate, medians, report, say_alone
from benchmarks.models import houlsby_operations
from Downstream.Text.train import Settings

ALONE = Process(0, 1, torch.device("cpu"))
Step = Callable[[int], float]
"""Takes a training step by its number within the epoch and returns the loss."""


@dataclass(frozen=True)
class Course:
    """Data and model of a step benchmark.

    Attributes:
        name: name of the benchmark's module.
        examples: training batches with the content of their items.
        model: builds the model with its initial weights, which are the same on each call.
        encode: encodes items as the released code does, ``[n, d]``.
    """

    name: str
    examples: TrainingSet
    model: Callable[[], TransRec]
    encode: Callable[[TransRec, np.ndarray], Tensor]

    def released_loss(self, model: TransRec, number: int) -> Tensor:
        """The loss of a step, computed as in the released code."""
        ids = self.examples.ids(1, number)
        return released_way.loss(model, lambda items: self.encode(model, items), ids)


def examples_of(
    interactions: Interactions,
    store: ContentStore,
    batch: int,
    *,
    objective: str = "sasrec",
    process: Process = ALONE,
) -> TrainingSet:
    """The training batches of a domain for a process."""
    return TrainingSet(
        interactions,
        store,
        batch_size=batch,
        seed=1,
        sampling=Sampling(OBJECTIVES[objective], per_target=1),
        process=process,
    )


def settings_of(batch: int, precision: str = "fp32") -> Settings:
    """Settings of a target run with learning rates for all parameter groups of the benchmarks."""
    adapter = KAdapterConfig()  # its joining layers have learning rates that no other family has
    return Settings(
        users="-", items="-", batch_size=batch, precision=precision, method="k_adapter", adapter=adapter
    )


class ProjectSteps:
    """Training steps of the project.

    Args:
        model: the model to train.
        examples: training batches.
        form: number format, such as ``bf16``.
        process: this process.
    """

    def __init__(self, model: TransRec, examples: TrainingSet, form: str, process: Process = ALONE) -> None:
        self.examples = examples
        domain = Domain("benchmark", examples.interactions, examples.store, "")
        self.setup = prepare(model, domain, settings_of(examples.batch_size, form), process)
        self._epoch = ExitStack()
        self._epoch.enter_context(self.setup.precision.frozen_weights(model.item_encoder))  # as in training

    def __call__(self, number: int) -> float:
        """Take a step of the first epoch by its number. Returns the loss."""
        return train_step(self.setup, self.examples[1, number], (1, 1, number))


def released_steps(course: Course) -> Step:
    """Training steps as in the released code, in float32."""
    model = released_way.plain(course.model().train())
    rates = settings_of(course.examples.batch_size).learning_rates()
    optimizer = make_optimizer(model, rates)

    def step(number: int) -> float:
        loss = course.released_loss(model, number)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def taken_in_turns(arms: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Time the same training steps for each name in alternation, after one untimed step."""
    numbers = {name: iter(range(rounds + 1)) for name in arms}
    return in_turns({name: lambda name=name: arms[name](next(numbers[name])) for name in arms}, rounds)


def lengths_of(batch: Batch) -> np.ndarray:
    """Number of tokens or patches of each distinct item of a batch."""
    (content,) = batch.contents
    if isinstance(content, Pixels):
        return np.full(len(content), (content.pixels.shape[1] // 16) ** 2 + 1)
    spans = [span for pack in content.packs for span in pack.packing.spans]
    return np.concatenate([np.full(count, length) for count, length in spans])


def measure_steps(course: Course, options: argparse.Namespace, goals: Mapping[str, float]) -> None:
    """Compare training steps in several number formats with the released code, and report.

    Args:
        course: data and model, with Houlsby adapters in all layers.
        options: ``batch``, ``layers``, ``rounds``, and ``alone``: measure only the memory of this variant.
        goals: target ratio by number format.
    """
    make: dict[str, Callable[[], Step]] = {"released": lambda: released_steps(course)}
    for form in goals:
        make[form] = lambda form=form: ProjectSteps(course.model().train(), course.examples, form)
    if options.alone:
        step = make[options.alone]()
        step(0)
        step(1)
        say_alone()
        return
    _require_equal(course)
    taken = taken_in_turns({name: one() for name, one in make.items()}, options.rounds)
    rates = {"fp32": matmul_rate(torch.float32), "bf16": matmul_rate(torch.bfloat16)}
    memory = {name: alone(f"benchmarks.{course.name}", name, given(options))["memory"] for name in make}
    config, seconds = course.model().item_encoder.backbone.config, medians(taken)
    lengths = [lengths_of(course.examples[1, number]) for number in range(1, options.rounds + 1)]
    useful = sum(houlsby_operations(config, one) for one in lengths)
    rows = [
        Measurement(
            f"{course.name}, {form}",
            seconds[form],
            seconds["released"],
            goal=goal,
            share=useful / sum(taken[form]) / rates[form],
            memory=memory[form],
            released_memory=memory["released"],
        )
        for form, goal in goals.items()
    ]
    about = {
        "users": options.batch,
        "layers": options.layers,
        "distinct items per step": [len(one) for one in lengths],
        "matrix product, GFLOP/s": {form: round(rate / 1e9) for form, rate in rates.items()},
    }
    report(course.name, rows, about)


def _require_equal(course: Course) -> None:
    """Assert that both implementations compute the same loss in float32 without dropout."""
    with torch.no_grad():
        found = course.model().eval()(course.examples[1, 0]).item()
        expected = course.released_loss(released_way.plain(course.model()).eval(), 0).item()
    assert abs(found - expected) < 1e-3 * abs(expected), (found, expected)
