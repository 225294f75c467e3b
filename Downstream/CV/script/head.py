"""Frozen backbone on Amazon: the item head and the user encoder are trained.

Hidden states of the backbone are computed once and cached. No released launcher exists; the learning rates
are our choice.
Recommended: ``--loss mixed --patience 5``, a softmax over the batch and uniform items (docs/results.md).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="head",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_item_head=1e-3,
    lr_user_encoder=1e-3,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
