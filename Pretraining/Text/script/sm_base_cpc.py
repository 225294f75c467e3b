"""Source model: BERT-base and the user encoder trained end to end on MIND, objective CPC.

Settings of the released launcher (2 processes x 32 users). The best epoch is exported for target domains.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    users="Dataset/MIND/mind_large_users_base.tsv",
    items="Dataset/MIND/mind_large_news_base.tsv",
    export="Downstream/Text/pretrained_models/sm_base_cpc.safetensors",
    objective="cpc",
    backbone="bert/bert_base_uncased",
    epochs=60,
    batch_size=64,
    lr_backbone=5e-5,
    lr_item_head=5e-6,
    lr_user_encoder=5e-6,
)

if __name__ == "__main__":
    launch("Pretraining.Text.train", hyperparameters)
