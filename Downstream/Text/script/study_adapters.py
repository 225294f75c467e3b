"""The benchmark of adapters: every family, from one source model, beside full fine-tuning and the baselines.

Which adapter comes nearest to full fine-tuning, with how many parameters, in what time and memory?
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository; nothing needs to be installed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import ADAPTERS, adapters

# Launchers of this folder by the name of the row: take some out, or add yours.
study = adapters(
    "Text",
    __doc__,
    ADAPTERS | {"Pfeiffer after layer norm": "adapter_pfeiffer_after_layernorm"},
    seeds=[1, 2, 3],
)

if __name__ == "__main__":
    launch_study(study)
