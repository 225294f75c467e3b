"""Layer norm tuning on Amazon: only the layer norms of both encoders are trained.

No released launcher exists; the learning rates are our choice.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="layernorm",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_item_layer_norms=1e-3,
    lr_user_layer_norms=1e-3,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
