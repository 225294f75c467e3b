"""A method of Hugging Face PEFT in the item encoder, Houlsby adapters in the user encoder, on Amazon.

``--peft`` chooses the method: lora, dora, ia3, oft, randlora, ln_tuning, vera, or another that PEFT knows.
No released launcher exists; the learning rate is our choice. Requires ``pip install peft``.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])  # the repository root; no installation needed

from adapter4rec.launching import launch

# A list is swept; every setting can be overridden on the command line: --name value.
hyperparameters = dict(
    method="peft",
    peft="lora",
    user_family="houlsby",
    users="Dataset/Amazon/amazon_2w_users.tsv",
    items="Dataset/Amazon/amazon_2w_items.tsv",
    images="Dataset/Amazon/amazon_images.lmdb",
    source_checkpoint="Downstream/CV/pretrained_models/sm_vit_sasrec.safetensors",
    epochs=100,
    batch_size=32,
    lr_adapter=1e-3,
    seed=12345,
)

if __name__ == "__main__":
    launch("Downstream.CV.train", hyperparameters)
