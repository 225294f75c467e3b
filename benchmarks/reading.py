"""Reading ``users.tsv`` and ``items.tsv`` of the size of MIND: time and peak memory in a separate process."""

from __future__ import annotations

import time
from pathlib import Path

from adapter4rec.data.interactions import read_interactions, read_items
from adapter4rec.datasets.sample import SampleSettings, make_sample
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY
from benchmarks.measuring import Measurement, alone, given, options_of, report, say_alone

_FOLDER = REPOSITORY / "cache" / "benchmarks"


def _files(users: int, items: int) -> Path:
    folder = _FOLDER / f"sample_{users}_{items}"
    make_sample(folder, SampleSettings(users=users, target_users=100, items=items))
    return folder / "source"


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, users=630_000, items=80_000)
    folder = _files(options.users, options.items)
    if options.alone:
        started = time.perf_counter()
        table = read_items(folder / "items.tsv", ("title",))
        interactions = read_interactions(folder / "users.tsv", table, min_seq_len=5, max_seq_len=20)
        say_alone(seconds=time.perf_counter() - started, clicks=len(interactions.clicks))
        return
    found = alone("benchmarks.reading", "project", given(options))
    more = {"clicks kept": f"{int(found['clicks']):,}", "target": "15 s, 1,536 MiB"}
    what = f"reading {options.users:,} users, {options.items:,} items"
    report("reading", [Measurement(what, found["seconds"], memory=found["memory"], more=more)], {})


if __name__ == "__main__":
    run_main(main)
