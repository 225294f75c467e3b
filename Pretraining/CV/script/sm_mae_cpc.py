"""Source model: ViTMAE-base and the user encoder trained end to end on H&M, objective CPC.

Settings of the released ViTMAE launcher for SASRec; none for CPC was released. The best epoch is exported for
target domains.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    users="Dataset/HM/hm_50w_users.tsv",
    items="Dataset/HM/hm_50w_items.tsv",
    images="Dataset/HM/hm_50w_images.lmdb",
    export="Downstream/CV/pretrained_models/sm_mae_cpc.safetensors",
    objective="cpc",
    backbone="vit-mae-base",
    epochs=60,
    batch_size=32,
    lr_backbone=1e-4,
    lr_item_head=2e-4,
    lr_user_encoder=2e-4,
    seed=12345,
)

if __name__ == "__main__":
    launch("Pretraining.CV.train", hyperparameters)
