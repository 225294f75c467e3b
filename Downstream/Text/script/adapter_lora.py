"""LoRA on the query and value projections of both encoders, trained on Adressa.

Settings of the released launcher.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="lora",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
    source_checkpoint="Downstream/Text/pretrained_models/sm_base_sasrec.safetensors",
    item_rank=12,
    user_rank=4,
    epochs=100,
    batch_size=32,
    lr_adapter=1e-3,
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
