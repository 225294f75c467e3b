"""Item-based nearest neighbours on Amazon: items that users of the history's items clicked on, too.

Items without an image are included, unless --images is set to the LMDB of the images.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="item_knn",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
