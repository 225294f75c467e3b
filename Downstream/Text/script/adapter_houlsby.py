"""Houlsby adapters in both encoders, trained on Adressa; everything else is frozen.

Settings of the released launcher.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="houlsby",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
    source_checkpoint="Downstream/Text/pretrained_models/sm_base_sasrec.safetensors",
    item_bottleneck=None,  # a twelfth of the backbone's width: 64 of 768
    user_bottleneck=None,  # a quarter of the user encoder's width: 16 of 64
    epochs=100,
    batch_size=32,
    lr_adapter=1.5e-4,
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
