"""The id tower trained on Amazon: an embedding table in place of the image encoder.

The baseline without content. No released settings exist; the learning rate is our choice.
Items without an image are included, unless --images is set to the LMDB of the images.
Recommended: ``--loss mixed --patience 5``, a softmax over the batch and uniform items (docs/results.md).
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="id",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    epochs=150,
    batch_size=32,
    lr_item_head=1e-3,
    lr_user_encoder=1e-3,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
