"""A training step with text: BERT-base with Houlsby adapters, a batch of users with their titles."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch

from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.batches import Division, EpochSteps, TrainingSet
from adapter4rec.distributed import Process
from adapter4rec.models.transrec import TransRec
from adapter4rec.stages import TextTargetSettings
from adapter4rec.training.loop import Trainer
from adapter4rec.training.parameters import make_optimizer, parameter_groups
from adapter4rec.training.precision import choose_precision
from benchmarks import released_way
from benchmarks.measuring import (
    Row,
    alone,
    arguments,
    given,
    in_turns,
    matrix_rate,
    medians,
    report,
    say_alone,
)
from benchmarks.models import domain_folder, houlsby_operations, read_domain, text_model

_MODULE = "benchmarks.text_step"
_CPU = torch.device("cpu")


class Steps:
    """The first steps of an epoch, taken in the project's way or in the released way."""

    def __init__(self, batch: int, layers: int) -> None:
        self.layers = layers
        self.interactions, self.store = read_domain(domain_folder(), 20)
        self.examples = TrainingSet(self.interactions, batch, seed=1)
        self.steps = EpochSteps(self.examples, self.store, 1, Division(), last_place_only=False)
        self.batch = batch

    def model(self) -> TransRec:
        """The model as training begins."""
        return text_model(HoulsbyConfig(), self.layers)

    def released(self, model: TransRec) -> Callable[[int], float]:
        """A step in the released way."""
        optimizer = make_optimizer(parameter_groups(model, settings_of(self.batch).learning_rates()))
        order = self.examples.order(1)

        def step(number: int) -> float:
            ids = self.examples.ids(order, 1, number)
            loss = released_way.loss(
                model, lambda items: released_way.encoded_titles(model, self.store, items), ids
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return step

    def project(self, model: TransRec, precision: str) -> Callable[[int], float]:
        """A step of the project's trainer."""
        return trainer_steps(model, self.steps, precision, settings_of(self.batch))

    def lengths(self, number: int) -> np.ndarray:
        """Tokens of each distinct title of a step."""
        (part,) = self.steps[number]
        spans = [span for pack in part.content.packs for span in pack.packing.spans]
        return np.concatenate([np.full(count, length) for count, length in spans])


def settings_of(batch: int) -> TextTargetSettings:
    """The settings of a run on a target domain."""
    return TextTargetSettings(users="-", items="-", batch_size=batch, method="finetune")


def trainer_steps(
    model: TransRec, steps: EpochSteps, precision: str, settings: TextTargetSettings
) -> Callable[[int], float]:
    """Steps by their number, as training takes them."""
    chosen = choose_precision(precision, _CPU)
    optimizer = make_optimizer(parameter_groups(model, settings.learning_rates()))
    trainer = Trainer(model, optimizer, chosen, settings, Process(0, 1, _CPU))
    frozen = chosen.frozen_weights(model.item_encoder)
    frozen.__enter__()  # for the whole epoch, as in training
    return lambda number: trainer.step(steps[number])


def _require_equal(steps: Steps) -> None:
    """In float32 and without dropout both ways give the same loss."""
    ours, theirs = steps.model().eval(), released_way.plain(steps.model()).eval()
    with torch.no_grad():
        (part,) = steps.steps[0]
        found = ours(part).item()
        ids = steps.examples.ids(steps.examples.order(1), 1, 0)
        expected = released_way.loss(
            theirs, lambda items: released_way.encoded_titles(theirs, steps.store, items), ids
        ).item()
    assert abs(found - expected) < 1e-4 * abs(expected), (found, expected)


def _options() -> argparse.Namespace:
    return arguments(__doc__, batch=8, layers=12, rounds=3).parse_args()


def main() -> None:
    """Measure and report."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    steps = Steps(options.batch, options.layers)
    arms = {
        "released": lambda: steps.released(released_way.plain(steps.model().train())),
        "fp32": lambda: steps.project(steps.model().train(), "fp32"),
        "bf16": lambda: steps.project(steps.model().train(), "bf16"),
    }
    if options.alone:
        step = arms[options.alone]()
        step(0)
        step(1)
        say_alone()
        return
    _require_equal(steps)
    numbers = {name: iter(range(options.rounds + 1)) for name in arms}
    ready = {name: make() for name, make in arms.items()}
    taken = in_turns(
        {name: lambda name=name: ready[name](next(numbers[name])) for name in arms}, options.rounds
    )
    rates = {"fp32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    config = steps.model().item_encoder.backbone.config
    useful = [houlsby_operations(config, steps.lengths(number)) for number in range(1, options.rounds + 1)]
    memory = {name: alone(_MODULE, name, given(options))["memory"] for name in arms}
    seconds = medians(taken)
    rows = [
        Row(
            f"text training step, {form}",
            seconds[form],
            seconds["released"],
            goal=goal,
            share=sum(useful) / sum(taken[form]) / rates[form],
            memory=memory[form],
            released_memory=memory["released"],
            more={"memory, ratio": round(memory["released"] / memory[form], 2)},
        )
        for form, goal in (("fp32", 7), ("bf16", 15))
    ]
    about = {
        "users": options.batch,
        "layers": options.layers,
        "titles": int(np.median([len(steps.lengths(number)) for number in range(1, options.rounds + 1)])),
        "matrix product, GFLOP/s": {form: round(rate / 1e9) for form, rate in rates.items()},
    }
    report("text_step", rows, about)


if __name__ == "__main__":
    main()
