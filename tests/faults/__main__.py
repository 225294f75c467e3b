"""``make test-faults``: faults injected into real runs, and a table of what they have cost.

Each part repeats a fault until it has happened often enough, lets the run finish, and compares the result
with that of an unbroken run. A part that fails does not keep the others from running. Ends with exit code 1
if anything was lost. ``--share 0.1`` tries a tenth of the faults, ``--part`` one part only.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from adapter4rec.report.rendering import aligned
from tests.faults.files import damaged_files, disk_full
from tests.faults.injecting import Shop, killed_lmdb_builds, killed_processes_of_two, killed_trainings

Part = Callable[[Shop, int], tuple[int, int, str]]
PARTS: dict[str, tuple[Part, int]] = {
    "kill -9 in training": (killed_trainings, 20),
    "kill -9 in building an LMDB": (killed_lmdb_builds, 10),
    "kill -9 of one of two processes": (killed_processes_of_two, 10),
    "full disk": (disk_full, 40),
    "damaged files": (damaged_files, 200),
}
"""Faults, and how often each is tried."""
FUZZING = "fuzzing"
INPUTS = 100_000


def main() -> int:
    """Run all parts and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the faults that are tried")
    parser.add_argument("--part", choices=(*PARTS, FUZZING), help="only this part")
    options = parser.parse_args()
    rows = []
    for name, (part, count) in PARTS.items():
        if options.part in (None, name):
            rows.append((name, *_carried_out(name, part, math.ceil(options.share * count))))
    fuzzed = 0
    if options.part in (None, FUZZING):
        command = [sys.executable, "-m", "tests.faults.fuzzing", "--inputs"]
        done = subprocess.run(
            [*command, str(math.ceil(options.share * INPUTS))], stdout=subprocess.PIPE, text=True, check=False
        )
        print(done.stdout, flush=True)
        fuzzed = done.returncode
        if done.stdout.strip():
            rows.append(tuple(word.strip() for word in done.stdout.splitlines()[-1].strip("| ").split("|")))
    print("\n" + aligned(("fault", "tried", "survived", "work lost at most"), rows), flush=True)
    return int(any(tried != survived for _, tried, survived, _ in rows) or bool(fuzzed))


def _carried_out(name: str, part: Part, count: int) -> tuple[str, str, str]:
    """A row of the table; what an exception of the part means is told."""
    random.seed(0)
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            tried, survived, lost = part(Shop(Path(folder)), count)
    except Exception:  # the other parts still run
        traceback.print_exc()
        tried, survived, lost = count, 0, "the part failed"
    print(f"{name}: {survived} of {tried}, {time.monotonic() - begin:.0f} s", flush=True)
    return str(tried), str(survived), lost


if __name__ == "__main__":
    sys.exit(main())
