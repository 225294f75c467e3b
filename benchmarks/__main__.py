"""All parts, one after the other, each in a process of its own: ``make bench``."""

from __future__ import annotations

import subprocess
import sys

from adapter4rec.utils.files import REPOSITORY

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
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], cwd=REPOSITORY, check=False)
        if done.returncode:
            failed.append(part)
    if failed:
        sys.exit(f"error: these did not end well: {', '.join(failed)}")


if __name__ == "__main__":
    main()
