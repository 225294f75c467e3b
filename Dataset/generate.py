"""Generate the sample: ``python -m Dataset.generate [--images] [--users N] [--items N] [--into FOLDER]``."""

from adapter4rec.datasets.sample.command import main
from adapter4rec.utils.errors import run_main

if __name__ == "__main__":
    run_main(main)
