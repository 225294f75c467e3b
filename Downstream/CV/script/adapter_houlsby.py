"""Houlsby adapters in both encoders, trained on Amazon; everything else is frozen.

Settings of the released launcher (4 processes x 8 users). For a ViTMAE source model use
--source_checkpoint … --backbone vit-mae-base.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="houlsby",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    item_bottleneck=None,  # a twelfth of the backbone's width: 64 of 768
    user_bottleneck=None,  # a quarter of the user encoder's width: 16 of 64
    epochs=100,
    batch_size=32,
    lr_adapter=4e-4,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
