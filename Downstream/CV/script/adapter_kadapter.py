"""K-Adapter for both encoders, trained on Amazon: transformer layers that run in parallel to the encoders.

Settings of the released launcher (4 processes x 8 users).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="k_adapter",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_adapter=1.5e-5,
    lr_item_join=1e-4,
    lr_user_join=2e-4,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
