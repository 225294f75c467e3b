"""Interleaved timing, peak memory in separate processes, and result tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from adapter4rec.utils import processes
from adapter4rec.utils.files import REPOSITORY, write_json
from adapter4rec.utils.machine import peak_memory
from adapter4rec.utils.settings import as_arguments
from adapter4rec.utils.versions import versions

RESULTS = REPOSITORY / "runs" / "benchmarks"
_MATRIX = 4096
_TRIES = 5


@dataclass
class Measurement:
    """A measurement.

    Attributes:
        what: short description.
        seconds: time of the project.
        released_seconds: time of the released code's data flow.
        goal: target for the ratio of the two.
        share: useful operations relative to what a large matrix product reaches in the same time, between 0
            and 1; None if not applicable.
        memory: peak memory of a separate process in MiB.
        released_memory: the same for the released code's data flow.
        more: further values, printed below the row.
    """

    what: str
    seconds: float | None = None
    released_seconds: float | None = None
    goal: float | None = None
    share: float | None = None
    memory: float | None = None
    released_memory: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times faster the project is."""
        return self.released_seconds / self.seconds if self.seconds and self.released_seconds else None


def in_turns(
    arms: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time functions in alternation, after one untimed call of each. Returns seconds per round by name.

    ``time.process_time`` as the clock counts the processor's seconds of all threads of this process. Other
    work on the machine then counts for little.
    """
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, run in arms.items():
            started = clock()
            run()
            if number:
                taken[name].append(clock() - started)
    return taken


def medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median seconds by name."""
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def alone(module: str, arm: str, options: Sequence[str]) -> dict[str, float]:
    """Run ``python -m MODULE --alone ARM`` in a separate process and return the values that it prints."""
    command = [sys.executable, "-m", module, *options, "--alone", arm]
    done = processes.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def say_alone(**figures: float) -> None:
    """Print values for :func:`alone`, with the peak memory of this process in MiB."""
    print(json.dumps({"memory": peak_memory() / 2**20, **figures}))


def machine() -> dict[str, Any]:
    """Description of the machine and package versions."""
    features = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
    cuda = torch.cuda.is_available()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "features": " ".join(name for name in features if name.startswith(("avx", "amx", "sve", "bf16"))),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "versions": versions(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def arguments(doc: str, **defaults: int) -> argparse.ArgumentParser:
    """A parser with the options common to all benchmarks and further integer options with defaults."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in {"threads": 0, **defaults}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="(%(default)s)")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    return parser


def options_of(doc: str, **defaults: int) -> argparse.Namespace:
    """Parse the command line; see :func:`arguments`."""
    return parsed(arguments(doc, **defaults))


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and set the number of threads."""
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def given(options: argparse.Namespace) -> list[str]:
    """Options as command-line arguments."""
    values = vars(options).items()
    return as_arguments({name: value for name, value in values if name != "alone" and value is not None})


def report(name: str, rows: Sequence[Measurement], about: Mapping[str, Any]) -> None:
    """Print the results of a benchmark and write ``runs/benchmarks/NAME.json``."""
    facts = machine()
    print(f"\n{name}: {', '.join(f'{key} {value}' for key, value in about.items())}")
    print(
        f"{facts['processor']}, {facts['threads']} threads, {facts['features']}, device {facts['device']}, "
        f"torch {facts['versions']['torch']}, transformers {facts['versions']['transformers']}, "
        f"{facts['date']}\n"
    )
    print(table(rows))
    content = {"name": name, "about": about, "machine": facts, "rows": [asdict(row) for row in rows]}
    write_json(RESULTS / f"{name}.json", content)


def table(rows: Sequence[Measurement]) -> str:
    """Measurements as a Markdown table."""
    lines = [
        "| what | reference, s | project, s | ratio | target | share of peak | MiB (reference) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        memory = "" if row.memory is None else f"{row.memory:,.0f}"
        if row.released_memory is not None:
            memory += f" ({row.released_memory:,.0f})"
        cells = [
            row.what,
            _shown(row.released_seconds),
            _shown(row.seconds),
            _shown(row.ratio),
            "" if row.goal is None else f"{row.goal:g}",
            "" if row.share is None else f"{100 * row.share:.0f} %",
            memory,
        ]
        lines.append("| " + " | ".join(cells) + " |")
        lines += [f"|   {key}: {value} |  |  |  |  |  |  |" for key, value in row.more.items()]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def matmul_rate(dtype: torch.dtype, device: torch.device | str = "cpu", size: int = _MATRIX) -> float:
    """Matrix multiplication speed in FLOP/s: the best of five runs after one warm-up run."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(_TRIES + 1):
        started = time.perf_counter()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])
