"""All parts, one after the other, each in a process of its own: ``make bench``."""

from __future__ import annotations

import sys

from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.processes import run

PARTS = (
    "text_step",
    "image_step",
    "embedding",
    "ranking",
    "pixels",
    "cached_states",
    "reading",
    "growth",
)


def main() -> None:
    """Run the parts that the command line names, or all."""
    failed = []
    for part in sys.argv[1:] or PARTS:
        if run([sys.executable, "-m", f"benchmarks.{part}"], cwd=REPOSITORY).returncode:
            failed.append(part)
    if failed:
        raise UserError(f"these benchmarks failed: {', '.join(failed)}")


if __name__ == "__main__":
    run_main(main)
