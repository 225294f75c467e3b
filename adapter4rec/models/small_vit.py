"""A small, untrained ViT for the image sample: no pretrained vision backbone comes with the project."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel

from adapter4rec.models.backbones import quiet_transformers
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import whole_folder

SIZES = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    # Ten times the usual: with small random weights all images look alike to it, and training stays for
    # many epochs where it began.
    "initializer_range": 0.2,
}
_SEED = 1


def make_small_vit(folder: Path) -> None:
    """Write a Hugging Face folder with a ViT of random weights, unless this one is there already.

    It reads images of 64 x 64 in patches of 16 x 16: 3 layers of width 64. Source training trains all of it.

    Raises:
        UserError: another model lies there.
    """
    if (folder / "config.json").is_file():
        there = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if all(there.get(name) == value for name, value in SIZES.items()):
            return
        raise UserError(f"{folder}: another model lies there; move it away, a small ViT is to be put there")
    with torch.random.fork_rng(devices=[]), quiet_transformers(), whole_folder(folder) as aside:
        torch.manual_seed(_SEED)
        ViTModel(ViTConfig(**SIZES), add_pooling_layer=False).save_pretrained(aside)
