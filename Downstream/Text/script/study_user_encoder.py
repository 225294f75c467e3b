"""User encoders, each with its own source model, with the head on cached states and the recommended loss.

The mean of the history is the floor. ``--source_method head`` trains the source models on cached states, too.
With text also ``--pooling``: the [CLS] state or the mean over the tokens of a title.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.paper import USER_ENCODERS, user_encoders

changes = {name: one | {"pooling": "cls"} for name, one in USER_ENCODERS.items()}
changes |= {"transformer, mean pooling": {"pooling": "mean"}}
study = user_encoders("Text", __doc__, changes, seeds=[1, 2, 3])

if __name__ == "__main__":
    launch_study(study)
