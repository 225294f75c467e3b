"""Source model without content: an embedding table for the items of H&M. It cannot be transferred.

Items without an image are included, unless --images is set to the LMDB of the images.
Recommended: ``--loss mixed --patience 5``, a softmax over the batch and uniform items (docs/results.md).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    users="Dataset/HM/hm_50w_users.tsv",
    items="Dataset/HM/hm_50w_items.tsv",
    method="id",
    epochs=60,
    batch_size=32,
    lr_item_head=1e-3,
    lr_user_encoder=1e-3,
    seed=12345,
)

if __name__ == "__main__":
    launch("Pretraining.CV.train", hyperparameters)
