"""How much target data do adapters need? Fractions of the target's users, adapters against full fine-tuning.

Training users are sampled by the seed; larger fractions contain the smaller ones. Validation and test always
use all users.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import SCALED, target_scale

study = target_scale("CV", __doc__, SCALED, shares=[0.1, 0.25, 0.5, 1.0], seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
