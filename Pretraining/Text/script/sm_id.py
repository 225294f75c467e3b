"""The id tower trained on MIND: an embedding table in place of the text encoder, objective SASRec.

The baseline without content. No released settings exist; the learning rate is our choice.
Recommended: ``--loss mixed --patience 5``, a softmax over the batch and uniform items (docs/results.md).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    users="Dataset/MIND/mind_large_users_base.tsv",
    items="Dataset/MIND/mind_large_news_base.tsv",
    method="id",
    epochs=60,
    batch_size=64,
    lr_item_head=1e-3,
    lr_user_encoder=1e-3,
)

if __name__ == "__main__":
    launch("Pretraining.Text.train", hyperparameters)
