"""Cost as a function of users, items, title length, layers and processes, as plots."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.interactions import Interactions
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.ranking import EvalBatch, rank_targets
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY, write_json
from adapter4rec.utils.process_group import process_group
from adapter4rec.utils.processes import child_environment, run
from benchmarks.measuring import RESULTS, in_turns, machine, options_of
from benchmarks.models import DIM, domain_folder, read_domain, text_model
from benchmarks.steps import ProjectSteps, examples_of
from benchmarks.text_step import text_course

_PICTURE = REPOSITORY / "docs" / "growth.png"
Curve = dict[str, list[float]]


def _median(step) -> float:  # noqa: ANN001
    return float(np.median(in_turns({"": step}, 3)[""]))


def _ranking(users: int, items: int) -> float:
    chance = np.random.default_rng(0)
    vectors, table = torch.randn(users, DIM), Embeddings(torch.randn(items + 1, DIM))
    nothing = np.empty(0, np.int64)
    question = EvalBatch(
        np.zeros((users, 1), np.int64), chance.integers(1, items + 1, users), nothing, nothing
    )
    return _median(lambda: rank_targets(vectors, table, question))


def _step(interactions: Interactions, store: TextStore, layers: int, batch: int) -> float:
    examples = examples_of(interactions, store, batch)
    step = ProjectSteps(text_model(HoulsbyConfig(), layers).train(), examples, "bf16")
    return _median(lambda: step(0))


def _of_length(store: TextStore, length: int) -> TextStore:
    """The same number of titles, each with ``length`` random tokens."""
    count = len(store.attributes[0].offsets) - 1
    flat = np.random.default_rng(0).integers(1000, 20000, count * length).astype(np.int32)
    return TextStore([Tokens(flat, np.arange(count + 1) * length, "")], store.tokens_at_once)


def _processes(counts: list[int], options: argparse.Namespace) -> Curve:
    """Sequences per second for several numbers of processes with one thread each."""
    rates = []
    for count in counts:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["-m", "benchmarks.growth", "--alone", "step", "--layers", str(options.layers)]
        environment = child_environment() | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
        done.check_returncode()
        rates.append(json.loads(done.stdout.splitlines()[-1])["rate"])
    return {"processes with one thread": counts, "sequences per second": rates}


def _one_of_several(layers: int) -> None:
    """Run steps as one of several processes. Rank 0 prints the rate as JSON."""
    options = argparse.Namespace(batch=16, layers=layers)
    with process_group("cpu", threads=1) as process:
        course = text_course(options, HoulsbyConfig(), process=process)
        step = ProjectSteps(course.model().train(), course.examples, "bf16", process)
        step(0)
        started = time.perf_counter()
        for number in (1, 2, 3):
            step(number)
        process.log(json.dumps({"rate": 3 * 16 / (time.perf_counter() - started)}))


def _draw(curves: dict[str, Curve], path: Path) -> None:
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 3)
    for one, (title, curve) in zip(axes.flat, curves.items(), strict=True):
        (across, x), (up, y) = curve.items()
        one.plot(x, y, marker="o", color="#1f5fa8")
        one.set(title=title, xlabel=across, ylabel=up, xlim=(0, 1.05 * max(x)), ylim=(0, 1.1 * max(y)))
        one.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, draw the plots and write ``runs/benchmarks/growth.json``."""
    options = options_of(__doc__, layers=6, batch=8)
    if options.alone:
        _one_of_several(options.layers)
        return
    interactions, store = read_domain(domain_folder(), 20)
    users, items = [5_000, 10_000, 20_000, 40_000], [25_000, 50_000, 100_000, 200_000]
    lengths, layers, batches = [5, 10, 20, 30], [1, 3, 6, 12], [4, 8, 16, 32]
    curves: dict[str, Curve] = {
        "ranking 50,000 items": {"users": users, "s": [_ranking(count, 50_000) for count in users]},
        "ranking 10,000 users": {"items": items, "s": [_ranking(10_000, count) for count in items]},
        f"step, {options.layers} layers": {
            "users per step": batches,
            "s": [_step(interactions, store, options.layers, batch) for batch in batches],
        },
        f"step, {options.batch} users, {options.layers} layers": {
            "tokens per title": lengths,
            "s": [
                _step(interactions, _of_length(store, length), options.layers, options.batch)
                for length in lengths
            ],
        },
        f"step, {options.batch} users": {
            "layers": layers,
            "s": [_step(interactions, store, count, options.batch) for count in layers],
        },
        f"step, 16 users, {options.layers} layers": _processes([1, 2], options),
    }
    write_json(RESULTS / "growth.json", {"machine": machine(), "layers": options.layers, "curves": curves})
    _draw(curves, _PICTURE)
    for title, curve in curves.items():
        print(title, {name: [round(value, 3) for value in values] for name, values in curve.items()})
    print(f"plots: {_PICTURE}")


if __name__ == "__main__":
    run_main(main)
