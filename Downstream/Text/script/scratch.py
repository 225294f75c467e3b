"""From scratch on Adressa: the pretrained backbone with a new item head and user encoder, no source model.

No released launcher exists; settings as in fine-tuning, with the learning rate 1e-4 for the new parts.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="scratch",
    users="Dataset/Adressa/Adressa_users_base.tsv",
    items="Dataset/Adressa/Adressa_news_base.tsv",
    backbone="bert/bert_base_uncased",
    epochs=100,
    batch_size=32,
    lr_backbone=5e-5,
    lr_item_head=1e-4,
    lr_user_encoder=1e-4,
)

if __name__ == "__main__":
    launch("Downstream.Text.train", hyperparameters)
