"""Training steps with in-batch softmax and with one sampled negative, and the memory of accumulation steps.

Houlsby adapters on MiniLM; the steps are timed in bf16. Memory is what the first two steps add to a process
with model and data. In bf16 on a CPU, some 400 MiB of it are kernels that oneDNN compiles and keeps.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.batches import TrainingSet
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.backbones import TEXT_ENCODERS, load_backbone
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.registry import LOSSES, registered
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.machine import peak_memory
from benchmarks.measuring import Measurement, alone, given, medians, options_of, report, say_alone
from benchmarks.models import DIM, TOKENIZER, domain_folder, read_domain
from benchmarks.steps import ProjectSteps, taken_in_turns

_PARTS = (1, 8)


def _steps(loss: str, batch: int, parts: int = 1, form: str = "bf16") -> ProjectSteps:
    """Training steps with a loss, on all items of a batch or in parts, in a number format."""
    interactions, store = read_domain(domain_folder(), 20)
    encoder = TextItemEncoder(load_backbone(backbone_folder(TOKENIZER), TEXT_ENCODERS), DIM)
    criterion = registered(LOSSES, loss)(LossSettings(loss=loss), interactions.n_items)
    model = TransRec(encoder, TransformerUserEncoder(DIM, 20, 2, 2, 0.1), "sasrec", criterion)
    add_adapters(model, HoulsbyConfig())
    examples = TrainingSet(
        interactions,
        store,
        batch_size=batch,
        seed=1,
        sampling=replace(criterion.sampling, positions=model.positions),
        accumulation_steps=parts,
    )
    return ProjectSteps(model.train(), examples, form)


def _memory(options: argparse.Namespace, arm: str) -> float:
    """MiB that training adds to the process before its first step."""
    found = alone("benchmarks.losses", arm, given(options))
    return found["memory"] - found["before"]


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, batch=64, rounds=5)
    if options.alone:
        form, parts = options.alone.split()
        steps = _steps("in_batch", options.batch, int(parts), form)
        before = peak_memory() / 2**20
        steps(0)
        steps(1)
        say_alone(before=before)
        return
    losses = ("bce", "in_batch", "mixed")
    seconds = medians(taken_in_turns({loss: _steps(loss, options.batch) for loss in losses}, options.rounds))
    rows = [
        Measurement(loss, seconds[loss], more={"relative to bce": f"{seconds[loss] / seconds['bce']:.2f}"})
        for loss in losses
    ]
    for form in ("fp32", "bf16"):
        memory = {parts: _memory(options, f"{form} {parts}") for parts in _PARTS}
        rows += [
            Measurement(
                f"in_batch, {form}, {parts} accumulation steps",
                memory=found,
                more={"memory relative to 1": f"{found / memory[1]:.2f}"},
            )
            for parts, found in memory.items()
        ]
    report("losses", rows, {"users per step": options.batch})


if __name__ == "__main__":
    run_main(main)
