"""Check a prepared domain: ``python -m Dataset.check FOLDER``."""

from adapter4rec.datasets.checking import check
from adapter4rec.utils.errors import run_main

if __name__ == "__main__":
    run_main(check)
