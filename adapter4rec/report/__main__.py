"""``python -m adapter4rec.report LEDGER…``: a page, tables and plots of the runs in ledgers."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.utils.errors import run_main


def main() -> None:
    """Write reports and print their tables."""
    parser = argparse.ArgumentParser(
        prog="adapter4rec report",
        description="Report the runs in ledgers as a page (HTML), tables (Markdown, CSV, LaTeX) and plots.",
        allow_abbrev=False,
    )
    ledgers = "ledger of a study (with its study.json) or of any runs; those of the same study are merged"
    into = "output folder (default: report, next to the ledger)"
    paper = "published results to compare with (default: Dataset/paper_results.csv)"
    parser.add_argument("ledgers", type=Path, nargs="+", metavar="LEDGER", help=ledgers)
    parser.add_argument("--into", type=Path, metavar="FOLDER", help=into)
    parser.add_argument("--paper", type=Path, metavar="FILE", help=paper)
    reference = "row that the others are compared with (default: that of the study; finetune for other runs)"
    parser.add_argument("--reference", metavar="ROW", help=reference)
    options = parser.parse_args()
    from adapter4rec.report.writing import write_report

    written = write_report(options.ledgers, options.into, options.paper, options.reference)
    for path in written:
        if path.name == "table.md":
            print(path.read_text("utf-8"))
    print("\n".join(f"written: {path}" for path in written))


if __name__ == "__main__":
    run_main(main)
