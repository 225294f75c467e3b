"""Prepare a public data set or any table: ``python -m Dataset.prepare NAME --raw FOLDER --into FOLDER``."""

from adapter4rec.datasets.command import prepare
from adapter4rec.utils.errors import run_main

if __name__ == "__main__":
    run_main(prepare)
