"""The id tower against models that read content, also by popularity of the target item.

Embeddings of ids are learned from clicks only; content is available for every item. The report also shows the
metrics for new, rare, middle and popular target items, and for short and long histories.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import IDS_AND_CONTENT, ids

study = ids("CV", __doc__, IDS_AND_CONTENT, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
