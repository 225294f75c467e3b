"""Run all benchmarks sequentially, each in its own process: ``make bench``."""

from __future__ import annotations

import sys

from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.processes import run

PARTS = (
    "text_step",
    "image_step",
    "peft_step",
    "losses",
    "embedding",
    "ranking",
    "pixels",
    "building",
    "cached_states",
    "reading",
    "preparing",
    "growth",
)


def main() -> None:
    """Run the benchmarks named on the command line; by default all."""
    failed = []
    for part in sys.argv[1:] or PARTS:
        if run([sys.executable, "-m", f"benchmarks.{part}"], cwd=REPOSITORY).returncode:
            failed.append(part)
    if failed:
        raise UserError(f"these benchmarks failed: {', '.join(failed)}")


if __name__ == "__main__":
    run_main(main)
