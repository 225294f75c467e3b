"""A training step on titles: BERT-base with Houlsby adapters."""

from __future__ import annotations

import argparse

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.process_group import Process
from benchmarks import released_way
from benchmarks.measuring import options_of
from benchmarks.models import domain_folder, read_domain, text_model
from benchmarks.steps import ALONE, Course, examples_of, measure_steps


def text_course(
    options: argparse.Namespace,
    adapter: AdapterConfig,
    name: str = "text_step",
    process: Process = ALONE,
) -> Course:
    """Training steps on the sequences and titles of a domain."""
    interactions, store = read_domain(domain_folder(), 20)
    return Course(
        name,
        examples_of(interactions, store, options.batch, process=process),
        lambda: text_model(adapter, options.layers),
        lambda model, items: released_way.encoded_titles(model, store, items),
    )


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, batch=8, layers=12, rounds=3)
    measure_steps(text_course(options, HoulsbyConfig()), options, {"fp32": 7, "bf16": 15})


if __name__ == "__main__":
    run_main(main)
