"""Ablation of adapter placement: encoders, sublayers, layers, serial or parallel, bottlenecks, layer norms.

The first row is the Houlsby launcher; each other row changes one setting.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import PLACEMENTS, placement

# Changed settings of each row; to add one: PLACEMENTS | {"bottleneck 256": {"item_bottleneck": 256}}.
study = placement("Text", __doc__, PLACEMENTS, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
