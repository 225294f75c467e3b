"""Where adapters belong: encoders, sublayers, layers, serial or parallel, bottlenecks, layer norms.

Each row is the Houlsby launcher with one thing changed; the first is as the launcher says.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository; nothing needs to be installed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import PLACEMENTS, placement

# What each row changes: PLACEMENTS | {"bottleneck 256": {"item_bottleneck": 256}} adds one.
study = placement("Text", __doc__, PLACEMENTS, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
