"""The id tower beside models that read content, also by popularity of the item that was to be found.

Ids can be learned only where there are clicks; content is there for every item. The page shows the same
metrics for new, rare, middle and popular items, and for short and long histories.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository; nothing needs to be installed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import IDS_AND_CONTENT, ids

study = ids("Text", __doc__, IDS_AND_CONTENT, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
