"""Frozen backbone on Adressa: the item head and the user encoder are trained.

Hidden states of the backbone are computed once and cached, so an epoch takes seconds. No released launcher
exists; the learning rates are our choice.
Recommended: ``--loss mixed --patience 5``, a softmax over the batch and uniform items (docs/results.md).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="head",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
    source_checkpoint="Downstream/Text/pretrained_models/sm_base_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_item_head=1e-3,
    lr_user_encoder=1e-3,
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
