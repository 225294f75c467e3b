"""Losses and their numbers of negatives, with the head on cached states and with the id tower.

Learning rates belong to the loss: search them for each one first (a list in a launcher is a sweep).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import LOSSES, losses

study = losses("Text", __doc__, {"head": "head", "id tower": "id"}, LOSSES, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
