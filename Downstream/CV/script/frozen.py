"""Zero-shot transfer to Amazon: the source model is evaluated without training."""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="frozen",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
