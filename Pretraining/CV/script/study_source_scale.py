"""How much source data do adapters need? Fractions of the source's users, with one source model for each.

Each source model is adapted to the whole target domain, with adapters and by full fine-tuning. Source users
are sampled by the seed of source training; larger fractions contain the smaller ones.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import SCALED, source_scale

study = source_scale("CV", __doc__, SCALED, shares=[0.1, 0.25, 0.5, 1.0], seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
