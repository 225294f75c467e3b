"""From scratch on Amazon: the pretrained backbone with a new item head and user encoder, no source model.

Settings of the released launcher for fine-tuning.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="scratch",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    backbone="vit-base-patch16-224",
    epochs=150,
    batch_size=32,
    lr_backbone=1e-4,
    lr_item_head=2e-4,
    lr_user_encoder=2e-4,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
