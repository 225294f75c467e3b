"""Prompt tuning on Amazon: 10 prompt tokens in the image encoder, and the item head, are trained.

Settings of the released launcher (4 processes x 8 users). The user encoder is frozen.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="prompt",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    encoders="item",
    prompt_tokens=10,
    train_head=True,
    epochs=100,
    batch_size=32,
    lr_adapter=2e-4,
    lr_item_head=2e-4,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
