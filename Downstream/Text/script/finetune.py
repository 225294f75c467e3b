"""Full fine-tuning on Adressa: all parameters of the source model are trained.

Settings of the released launcher.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="finetune",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
    source_checkpoint="Downstream/Text/pretrained_models/sm_base_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_backbone=5e-5,
    lr_item_head=5e-5,
    lr_user_encoder=1e-4,
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
