"""Memory and latency of domains that share one base model, and of as many fully fine-tuned models.

Reads the runs of ``make quickstart``. Each row is a process of its own. The domains are copies of one domain,
in files of their own, as one file would be in memory once. Memory is measured after each domain has encoded
an item, since weights are read from disk when they are first used.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import adapter4rec
from adapter4rec.report.rendering import aligned
from adapter4rec.serving.bundles import write_bundle
from adapter4rec.serving.recommender import Recommender
from adapter4rec.utils import processes
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY, write_json
from benchmarks.measuring import RESULTS, machine

_ROUNDS = 40
_CLICKS = 10
_NEW = {"title": "a steel string set for acoustic guitars"}


def main() -> None:
    """Run the benchmark, or one row of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=20, help="number of domains (%(default)s)")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        kind, count, bundles = options.alone
        print(json.dumps(_row(kind, int(count), Path(bundles))))
        return
    with TemporaryDirectory() as folder:
        bundles = Path(folder)
        for name in ("houlsby", "finetune"):
            model = adapter4rec.load(REPOSITORY / "runs" / "quickstart" / name, device="cpu")
            write_bundle(model, bundles / name)
            if name == "houlsby":
                write_bundle(model, bundles / "small", with_base=False)
        for number in range(options.domains):
            for name in ("small", "finetune"):
                shutil.copytree(bundles / name, bundles / f"{name}{number}")
        rows = {
            f"{count} {kind}": _alone(kind, count, bundles)
            for kind in ("domains", "full models")
            for count in (1, options.domains)
        }
        sizes = {name: _size(bundles / name) for name in ("houlsby", "small", "finetune")}
    head = "", *next(iter(rows.values()))
    cells = [(name, *(f"{value:,.4g}" for value in row.values())) for name, row in rows.items()]
    print(aligned(head, cells))
    print("size of a bundle (MB):", ", ".join(f"{name} {size:,.1f}" for name, size in sizes.items()))
    write_json(RESULTS / "sharing.json", {"machine": machine(), "rows": rows, "megabytes": sizes})


def _alone(kind: str, count: int, bundles: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.sharing", "--alone", kind, str(count), str(bundles)]
    done = processes.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    done.check_returncode()
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _row(kind: str, count: int, bundles: Path) -> dict[str, float]:
    adapter4rec.from_pretrained(bundles / "finetune", device="cpu").encode([_NEW])  # what is loaded once
    gc.collect()
    before, started = _resident(), time.perf_counter()
    names = [str(number) for number in range(count)]
    models: Mapping[str, Recommender]
    if kind == "domains":
        small = {name: bundles / f"small{name}" for name in names}
        models = adapter4rec.Domains(small, base=bundles / "houlsby", device="cpu")
    else:
        models = {
            name: adapter4rec.from_pretrained(bundles / f"finetune{name}", device="cpu") for name in names
        }
    seconds = time.perf_counter() - started
    for model in models.values():
        model.encode([_NEW])
    memory = _resident() - before
    history = models[names[0]].candidates.names[:_CLICKS]

    def milliseconds(call: Callable[[str], object]) -> float:
        """Median over calls for the domains in turn, so that each call is for another domain."""
        taken = []
        for number in range(_ROUNDS):
            at = time.perf_counter()
            call(names[number % count])
            taken.append(time.perf_counter() - at)
        return 1000 * statistics.median(taken)

    return {
        "memory (MB)": memory / 1e6,
        "loading (s)": seconds,
        "switching (ms)": milliseconds(lambda name: models[name]),
        "recommend (ms)": milliseconds(lambda name: models[name].recommend(history)),
        "recommend, one item unknown (ms)": milliseconds(
            lambda name: models[name].recommend([*history, _NEW])
        ),
    }


def _resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    run_main(main)
