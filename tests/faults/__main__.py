"""``make test-faults``: faults injected into real runs, and a table of what they have cost.

Each part repeats a fault until it has happened often enough, lets the run finish, and compares the result
with that of an unbroken run. Ends with exit code 1 if anything was lost.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from adapter4rec.report.rendering import aligned
from tests.faults.injecting import (
    Shop,
    disk_full,
    killed_lmdb_builds,
    killed_processes_of_two,
    killed_trainings,
)

FUZZING = "tests.faults.fuzzing"


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    tried: int
    survived: int
    lost: str


def main() -> int:
    """Run all parts and print the table. Returns the exit code."""
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        shop = Shop(Path(name))
        parts: dict[str, Callable[[], tuple[int, int, str]]] = {
            "kill -9 in training": lambda: killed_trainings(shop, 20),
            "kill -9 in building an LMDB": lambda: killed_lmdb_builds(shop, 10),
            "kill -9 of one of two processes": lambda: killed_processes_of_two(shop, 10),
            "full disk": lambda: disk_full(shop, 40),
        }
        outcomes = {}
        for part, carry_out in parts.items():
            started = time.monotonic()
            outcomes[part] = Outcome(*carry_out())
            print(f"{part}: {outcomes[part]}, {time.monotonic() - started:.0f} s", flush=True)
    rows = [(part, str(one.tried), str(one.survived), one.lost) for part, one in outcomes.items()]
    print("\n" + aligned(("fault", "tried", "survived", "work lost at most"), rows), flush=True)
    failed = any(one.survived < one.tried for one in outcomes.values())
    if find_spec(FUZZING) is None:
        print(f"skipped: damaged files and fuzzed inputs ({FUZZING} does not exist)")
        return int(failed)
    return int(failed) or subprocess.run([sys.executable, "-m", FUZZING], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
