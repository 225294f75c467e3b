"""K-Adapter for both encoders, trained on Adressa: transformer layers that run in parallel to the encoders.

Settings of the released launcher.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="k_adapter",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
    source_checkpoint="Downstream/Text/pretrained_models/sm_base_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_adapter=5e-6,
    lr_item_join=5e-5,
    lr_user_join=1e-4,
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
