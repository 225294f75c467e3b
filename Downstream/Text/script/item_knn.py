"""Item-based nearest neighbours on Adressa: items that users of the history's items clicked on, too."""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="item_knn",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
