"""``python -m adapter4rec.report LEDGER…``: what ledgers hold, as a page, tables and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.report.writing import write_report
from adapter4rec.utils.errors import run_main


def main() -> None:
    """Write reports and print their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m adapter4rec.report",
        description="What ledgers hold, as a page (HTML), tables (Markdown, CSV, LaTeX) and pictures.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "ledgers",
        type=Path,
        nargs="+",
        metavar="LEDGER",
        help="of a study, with its study.json beside it, or of any runs; those of one study are put together",
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="by default the folder report beside the ledger"
    )
    parser.add_argument(
        "--paper",
        type=Path,
        metavar="FILE",
        help="figures to stand beside the measured ones; by default Dataset/paper_results.csv",
    )
    options = parser.parse_args()
    written = write_report(options.ledgers, options.into, options.paper)
    for path in written:
        if path.name == "table.md":
            print(path.read_text("utf-8"))
    print("\n".join(f"written: {path}" for path in written))


if __name__ == "__main__":
    run_main(main)
