"""Benchmark of all adapter families with one source model, against full fine-tuning and the baselines.

Which adapter comes closest to full fine-tuning, with how many parameters, how much time and memory?
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.adapters.peft import TESTED
from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import ADAPTERS, adapters

# Launchers in this folder by name of the table row; remove or add entries as needed.
families = ADAPTERS | {"Pfeiffer after layer norm": "adapter_pfeiffer_after_layernorm"}
study = adapters("Text", __doc__, families, seeds=[1, 2, 3], peft=TESTED)

if __name__ == "__main__":
    launch_study(study)
