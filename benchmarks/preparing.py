"""Preparing a table of the size of a web shop: time and peak memory in a separate process.

The table is generated: clicks in random order of users and time, popular items more often, titles of items.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl

from adapter4rec.datasets.command import prepare
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY, atomic_folder
from benchmarks.measuring import Measurement, alone, given, options_of, report, say_alone

_FOLDER = REPOSITORY / "cache" / "benchmarks"
_ROWS_AT_ONCE = 1_000_000
_START = 1_500_000_000
_YEAR = 365 * 24 * 3600


def _files(rows: int, users: int, items: int) -> Path:
    """A folder with ``clicks.csv`` and ``items.csv``, generated if missing."""
    folder = _FOLDER / f"table_{rows}_{users}_{items}"
    if folder.is_dir():
        return folder
    generator = np.random.default_rng(0)
    with atomic_folder(folder) as temporary:
        with (temporary / "clicks.csv").open("wb") as file:
            for first in range(0, rows, _ROWS_AT_ONCE):
                count = min(_ROWS_AT_ONCE, rows - first)
                block = pl.DataFrame(
                    {
                        "customer": generator.integers(0, users, count),
                        "sku": (items * generator.random(count) ** 3).astype(np.int64),
                        "time": generator.integers(_START, _START + _YEAR, count),
                    }
                ).with_columns(
                    pl.format("C{}", "customer").alias("customer"), pl.format("SKU-{}", "sku").alias("sku")
                )
                block.write_csv(file, include_header=first == 0)
        names = pl.DataFrame({"sku": np.arange(items)})
        titled = names.select(
            pl.format("SKU-{}", "sku").alias("sku"), pl.format("The title of product {}", "sku").alias("name")
        )
        titled.write_csv(temporary / "items.csv")
    return folder


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, rows=30_000_000, users=2_000_000, items=500_000, k_core=5)
    folder = _files(options.rows, options.users, options.items)
    if options.alone:
        into = _FOLDER / "prepared"
        shutil.rmtree(into, ignore_errors=True)
        columns = ["--user", "customer", "--item", "sku", "--time", "time", "--title", "name"]
        files = ["--interactions", str(folder / "clicks.csv"), "--items", str(folder / "items.csv")]
        started = time.perf_counter()
        prepare(["table", *files, *columns, "--k_core", str(options.k_core), "--into", str(into)])
        say_alone(seconds=time.perf_counter() - started)
        return
    found = alone("benchmarks.preparing", "project", given(options))
    what = f"preparing {options.rows:,} rows, {options.users:,} users, {options.items:,} items"
    more = {"target": "2,048 MiB"}
    report("preparing", [Measurement(what, found["seconds"], memory=found["memory"], more=more)], {})


if __name__ == "__main__":
    run_main(main)
