"""The most popular items of Amazon for everybody: the baseline that any recommender must beat.

Items without an image take part, unless --images names the LMDB that tells which they are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository; nothing needs to be installed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="popularity",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
